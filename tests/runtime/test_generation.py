"""Tests the engine of generating models: seats, order of the steps, ends. Tests decide when a step may continue."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import numpy as np
import pytest

from models.base import InvalidInput as UnusableInput
from models.base import Tensors
from models.generating import PlainGenerating
from models.reference import repeat_spec
from models.spec import Limits
from serving.core.errors import InvalidInput, LaneLost, ModelError, NotOneAnswer
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Reason, Rejected
from serving.runtime.generation import UNREAD, GeneratingEngine
from serving.telemetry.recorder import Recorder
from serving.testing.clock import ManualClock


class Counting:
    """Counts up to the input's first value. Every step waits for a permit; steps and closed generators are recorded.
    Counting to 20 fails at 13."""

    def __init__(self, permits: int = 10_000) -> None:
        self.permits = threading.Semaphore(permits)
        self.steps: list[tuple[int, int]] = []
        self.closed: list[int] = []

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        upto = int(inputs["in"].ravel()[0])
        if upto < 0:
            raise UnusableInput("cannot count down")
        try:
            for number in range(upto):
                self.permits.acquire()
                self.steps.append((upto, number))
                if (upto, number) == (20, 13):
                    raise ValueError("unlucky")
                yield {"out": np.array([[number]], np.int32)}
        finally:
            self.closed.append(upto)


class Meeting:
    """Waits before each answer until as many generations wait as the input says, so that none can continue alone."""

    def __init__(self) -> None:
        self.arrived = 0
        self.all_here = asyncio.Event()
        self.closed: list[int] = []

    async def generate(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        wanted = int(inputs["in"].ravel()[0])
        try:
            for number in range(2):
                self.arrived += 1
                if self.arrived >= wanted * (number + 1):
                    self.all_here.set()
                await self.all_here.wait()
                if wanted == 13:
                    raise ValueError("unlucky")
                yield {"out": np.array([[number]], np.int32)}
        finally:
            self.closed.append(wanted)


def engine_of(
    model: Counting | Meeting, recorder: Recorder | None = None, clock: ManualClock | None = None, **limits: object
) -> GeneratingEngine:
    spec = repeat_spec(limits=replace(Limits(), **limits))
    return GeneratingEngine(PlainGenerating(spec, model), observer=recorder, clock=clock)


def upto(count: int) -> Tensors:
    return {"in": np.array([[count]], np.int32)}


async def numbers(answers) -> list[int]:
    return [int(answer["out"][0, 0]) async for answer in answers]


async def until(condition) -> None:
    """Polls for a condition that another thread makes true."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_answers_come_in_order_and_the_request_ends_completed() -> None:
    async def story() -> None:
        async with engine_of(Counting()) as engine:
            answers = engine.generate(upto(5))
            assert await numbers(answers) == [0, 1, 2, 3, 4]
            assert type(answers.outcome) is Completed
            assert await numbers(engine.generate(upto(0))) == []
            assert engine.statistics().success.count == 2
        engine.ledger.check()
        assert engine.ledger.ended == {"Completed": 2}

    asyncio.run(story())


def test_generations_take_turns_by_the_step() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting) as engine:
            both = [engine.generate(upto(3)), engine.generate(upto(4))]
            counting.permits.release(100)
            await asyncio.gather(*map(numbers, both))
        firsts = [count for count, _ in counting.steps[:6]]
        assert firsts == [3, 4, 3, 4, 3, 4]

    asyncio.run(story())


def test_requests_without_a_seat_wait_and_the_urgent_go_first() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting, max_generations=1) as engine:
            requests = [engine.generate(upto(1)), engine.generate(upto(2)), engine.generate(upto(3), priority=1)]
            assert (engine.ledger.in_flight, engine.ledger.queued) == (1, 2)
            counting.permits.release(100)
            await asyncio.gather(*map(numbers, requests))
        assert [count for count, number in counting.steps if number == 0] == [1, 3, 2]

    asyncio.run(story())


def test_cancelling_a_running_generation_stops_the_work_and_frees_the_seat() -> None:
    async def story() -> None:
        counting = Counting(permits=2)
        async with engine_of(counting, max_generations=1) as engine:
            leaving, waiting = engine.generate(upto(1000)), engine.generate(upto(1))
            assert (await anext(leaving))["out"] == 0
            leaving.cancel()
            counting.permits.release(2)
            assert await numbers(waiting) == [0]
            await until(lambda: counting.closed == [1000, 1])
            assert type(leaving.outcome) is Cancelled
            assert len([step for step in counting.steps if step[0] == 1000]) <= 3
        engine.ledger.check()

    asyncio.run(story())


def test_a_generation_cancelled_while_it_waits_is_never_begun() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting, max_generations=1) as engine:
            first, second = engine.generate(upto(1)), engine.generate(upto(2))
            second.cancel()
            assert type(second.outcome) is Cancelled
            third = engine.generate(upto(3), timeout_ns=1_000_000)
            assert await numbers(third) == []
            assert type(third.outcome) is Expired
            counting.permits.release(10)
            assert await numbers(first) == [0]
        assert {count for count, _ in counting.steps} == {1}

    asyncio.run(story())


def test_a_reader_that_does_not_read_pauses_its_own_generation_only() -> None:
    async def story() -> None:
        counting = Counting()
        async with engine_of(counting) as engine:
            slow, quick = engine.generate(upto(1000)), engine.generate(upto(12))
            await numbers(quick)
            await until(lambda: len([step for step in counting.steps if step[0] == 1000]) == UNREAD)
            await anext(slow)
            await until(lambda: len([step for step in counting.steps if step[0] == 1000]) == UNREAD + 1)
            slow.cancel()

    asyncio.run(story())


def test_what_the_model_raises_ends_the_request_after_the_answers_it_gave() -> None:
    async def story() -> None:
        async with engine_of(Counting()) as engine:
            answers = engine.generate(upto(20))
            assert len(await numbers(answers)) == 13
            assert isinstance(answers.outcome, Failed)
            assert isinstance(answers.outcome.error, ModelError)
            refused = engine.generate(upto(-1))
            assert await numbers(refused) == []
            assert isinstance(refused.outcome.error, InvalidInput)
            assert str(refused.outcome.error) == "cannot count down"

    asyncio.run(story())


def test_a_full_queue_refuses_and_a_draining_engine_too() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting, max_generations=1, max_queue_requests=1) as engine:
            running, waiting, third = (engine.generate(upto(1)) for _ in range(3))
            assert isinstance(third.outcome, Rejected)
            assert third.outcome.reason is Reason.QUEUE_FULL
            draining = asyncio.create_task(engine.drain(timeout_s=10))
            await asyncio.sleep(0)
            late = engine.generate(upto(1))
            assert late.outcome.reason is Reason.DRAINING
            counting.permits.release(10)
            assert await draining == 0
            assert type(running.outcome) is type(waiting.outcome) is Completed

    asyncio.run(story())


def test_a_step_that_never_returns_loses_the_replica_and_every_request_fails() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        engine = engine_of(counting, forward_timeout_s=0.05)
        await engine.open()
        requests = [engine.generate(upto(1)), engine.generate(upto(1))]
        for answers in requests:
            assert await numbers(answers) == []
            assert isinstance(answers.outcome.error, LaneLost)
        assert not engine.is_ready()
        assert await engine.drain(timeout_s=1) == 0
        engine.ledger.check()
        counting.permits.release(10)
        engine.close()

    asyncio.run(story())


def test_a_request_for_exactly_one_answer_is_refused() -> None:
    async def story() -> None:
        async with engine_of(Counting()) as engine:
            outcome = await engine.submit(upto(1), rows=1)
            assert isinstance(outcome.error, NotOneAnswer)
            text = "ModelInfer RPC doesn't support models with decoupled transaction policy"  # Triton's
            assert str(outcome.error).startswith(text)

    asyncio.run(story())


def test_every_generation_is_counted_once_with_its_tenant_however_it_ends() -> None:
    recorder = Recorder()

    async def story() -> GeneratingEngine:
        async with engine_of(Counting(), recorder, max_queue_requests=1, max_generations=1) as engine:
            well, failing, refused = (engine.generate(upto(count), tenant="a") for count in (3, 20, 1))
            assert await numbers(well) == [0, 1, 2]
            await numbers(failing)
            assert type(refused.outcome) is Rejected
            assert type(await engine.submit(upto(1), rows=1, tenant="b")) is Failed
            leaving = engine.generate(upto(1000), tenant="b")
            await anext(leaving)
            leaving.cancel()
        return engine

    engine = asyncio.run(story())
    counts = recorder.counts()
    assert counts.ended == {
        ("failed", "model_error"): 1,
        ("rejected", "queue_full"): 1,
        ("failed", "invalid_input"): 1,
        ("cancelled", ""): 1,
    }
    assert counts.request_ns.count() == counts.queue_ns.count() == counts.first_ns.count() == 1
    assert counts.answers == 3
    assert 0 < counts.first_ns.total <= counts.request_ns.total
    assert counts.request_ns.count() + counts.ended.total() == engine.ledger.snapshot().received
    assert {name: one.requests for name, one in counts.tenants.items()} == {"a": 3, "b": 2}


@pytest.mark.parametrize("leaves", [SystemExit(3), StopIteration("no more")])
def test_whatever_a_model_raises_before_it_begins_the_thread_goes_on(leaves: BaseException) -> None:
    class Leaving(Counting):
        def generate(self, inputs: Tensors) -> Iterator[Tensors]:
            if inputs["in"][0, 0] == 13:
                raise leaves
            return super().generate(inputs)

    async def story() -> None:
        async with asyncio.timeout(60), engine_of(Leaving()) as engine:
            odd = engine.generate(upto(13))
            assert await numbers(odd) == []
            assert isinstance(odd.outcome, Failed)
            assert isinstance(odd.outcome.error, ModelError)
            assert await numbers(engine.generate(upto(2))) == [0, 1]

    asyncio.run(story())


@pytest.mark.parametrize("leaves", ["cancel", "expire"])
def test_a_generation_that_leaves_while_it_waits_leaves_nothing_behind(leaves: str) -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting, max_generations=1, max_queue_requests=4) as engine:
            running = engine.generate(upto(1))
            for _ in range(1000 if leaves == "cancel" else 4):
                waiting = engine.generate(upto(2), timeout_ns=1_000_000 if leaves == "expire" else None)
                if leaves == "cancel":
                    waiting.cancel()
                else:
                    assert await numbers(waiting) == []
                assert type(waiting.outcome) is (Cancelled if leaves == "cancel" else Expired)
                assert waiting.payload == {}
            assert engine._waiting == []
            counting.permits.release(10)
            assert await numbers(running) == [0]

    asyncio.run(story())


def test_steps_of_generations_that_left_do_not_pile_up_behind_a_slow_one() -> None:
    async def story() -> None:
        counting = Counting(permits=0)
        async with engine_of(counting, max_generations=2) as engine:
            slow = engine.generate(upto(1))
            await until(lambda: len(engine._steps._thread.handed_out) > 0)
            for _ in range(1000):
                leaving = engine.generate(upto(2))
                await asyncio.sleep(0)
                leaving.cancel()
                await asyncio.sleep(0)
            steps = engine._steps
            assert len(steps._line) + len(steps._thread.handed_out) <= steps._thread.most_handed_out + 2
            counting.permits.release(10)
            assert await numbers(slow) == [0]

    asyncio.run(story())


def test_waiting_for_the_steps_of_others_does_not_count_as_hanging() -> None:
    """Stops the clock while the event loop's timers go off again and again, so that no step has taken any time."""

    async def story() -> None:
        counting, clock = Counting(permits=0), ManualClock(1)
        async with engine_of(counting, clock=clock, forward_timeout_s=0.01) as engine:
            requests = [engine.generate(upto(1)) for _ in range(8)]
            looks = engine._loop.time() + 0.05
            await until(lambda: engine._loop.time() > looks)
            assert engine.is_ready()
            counting.permits.release(8)
            assert await asyncio.gather(*map(numbers, requests)) == [[0]] * 8
            hanging = engine.generate(upto(1))
            await until(lambda: any(call.began_ns for call in engine._steps._thread.handed_out))
            clock.advance(20_000_000)
            async with asyncio.timeout(60):
                await numbers(hanging)
            assert isinstance(hanging.outcome.error, LaneLost)
            counting.permits.release(8)

    asyncio.run(story())


def test_generations_that_wait_do_so_side_by_side() -> None:
    async def story() -> None:
        async with engine_of(Meeting()) as engine, asyncio.timeout(60):
            requests = [engine.generate(upto(3)) for _ in range(3)]
            assert await asyncio.gather(*map(numbers, requests)) == [[0, 1]] * 3
            assert engine.reading().lanes == engine.spec.limits.max_generations
        engine.ledger.check()

    asyncio.run(story())


def test_an_async_generation_is_closed_when_its_client_leaves_and_fails_alone() -> None:
    async def story() -> None:
        meeting = Meeting()
        async with engine_of(meeting) as engine, asyncio.timeout(60):
            leaving = engine.generate(upto(100))
            await until(lambda: meeting.arrived == 1)
            leaving.cancel()
            assert type(leaving.outcome) is Cancelled
            await until(lambda: meeting.closed == [100])
            meeting.arrived = 12
            failing = engine.generate(upto(13))
            assert await numbers(failing) == []
            assert isinstance(failing.outcome.error, ModelError)
            assert await numbers(engine.generate(upto(1))) == [0, 1]
        engine.ledger.check()

    asyncio.run(story())


def test_an_async_step_that_never_returns_costs_the_replica() -> None:
    async def story() -> None:
        async with engine_of(Meeting(), forward_timeout_s=0.05) as engine, asyncio.timeout(60):
            waiting = engine.generate(upto(2))
            assert await numbers(waiting) == []
            assert isinstance(waiting.outcome.error, LaneLost)
            with pytest.raises(LaneLost):
                engine.check_health()
        engine.ledger.check()

    asyncio.run(story())


def test_a_cancelled_error_of_an_async_model_is_the_models_failure() -> None:
    class Cancelling:
        async def generate(self, inputs: Tensors) -> AsyncIterator[Tensors]:
            raise asyncio.CancelledError
            yield {}

    async def story() -> None:
        async with engine_of(Cancelling()) as engine, asyncio.timeout(60):  # type: ignore[arg-type]
            answers = engine.generate(upto(1))
            assert await numbers(answers) == []
            assert isinstance(answers.outcome.error, ModelError)

    asyncio.run(story())


@pytest.mark.parametrize("writes", ["in turn", "awaiting"])
def test_a_generation_that_writes_into_its_input_changes_no_clients_memory(writes: str) -> None:
    class Writing:
        def generate(self, inputs: Tensors) -> Iterator[Tensors]:
            for _ in range(2):
                inputs["in"] *= 2
                yield {"out": inputs["in"].copy()}

    class WritingLater:
        async def generate(self, inputs: Tensors) -> AsyncIterator[Tensors]:
            for answer in Writing().generate(inputs):
                yield answer

    async def story() -> None:
        given = upto(2)
        given["in"].flags.writeable = False
        async with engine_of(Writing() if writes == "in turn" else WritingLater()) as engine:  # type: ignore[arg-type]
            for _ in range(3):
                assert await numbers(engine.generate(given)) == [4, 8]
        assert given["in"][0, 0] == 2

    asyncio.run(story())
