"""Tests the engine with a scripted model: every request gets exactly one answer, whatever fails."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from models.base import DeviceLost, InvalidInput, OutOfDeviceMemory
from models.spec import Limits
from serving.core.clock import Clock
from serving.core.errors import BatchTimeout, LaneLost, ModelError, OutOfMemory
from serving.core.errors import InvalidInput as InvalidInputError
from serving.core.intake import UNBOUNDED
from serving.core.outcome import Completed, Expired, Failed, Outcome, Reason, Rejected
from serving.core.request import NO_DEADLINE_NS
from serving.runtime.engine import Engine
from serving.runtime.ticket import Ticket
from serving.testing.clock import ManualClock
from serving.testing.models import POISON, ScriptedModel


def run(
    model: ScriptedModel,
    story: Callable[[Engine], Awaitable[None]],
    *,
    batches_per_lane: int = 1,
    clock: Clock | None = None,
) -> Engine:
    """Runs `story` with a warm engine. Afterwards no request may be open."""

    async def play() -> Engine:
        async with Engine([model], batches_per_lane=batches_per_lane, clock=clock) as engine:
            await story(engine)
        assert engine.ledger.is_empty()
        engine.ledger.check()
        assert not engine._open_tickets
        return engine

    return asyncio.run(play())


def submit(engine: Engine, *values: float, **options: object) -> Ticket:
    x = np.array([[value] * 4 for value in values], np.float32)
    return engine.submit({"x": x}, rows=len(values), **options)  # type: ignore[arg-type]


def value(outcome: Outcome) -> float:
    assert isinstance(outcome, Completed), outcome
    assert isinstance(outcome.value, dict)
    return float(outcome.value["sum"][0, 0])


async def until_computing(model: ScriptedModel) -> None:
    """Returns when a forward pass has begun and waits at the gate."""
    await asyncio.to_thread(model.entered.acquire)


@pytest.mark.parametrize("batches_per_lane", [1, 2])
def test_each_request_gets_the_answer_to_its_own_rows(batches_per_lane: int) -> None:
    async def story(engine: Engine) -> None:
        outcomes = await asyncio.gather(*(submit(engine, float(number)) for number in range(20)))
        assert [value(outcome) for outcome in outcomes] == [4.0 * number for number in range(20)]

    run(ScriptedModel(), story, batches_per_lane=batches_per_lane)


def test_requests_that_arrive_while_the_lane_is_busy_share_a_batch() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        first = submit(engine, 1.0)
        await until_computing(model)
        rest = [submit(engine, 1.0) for _ in range(5)]
        model.gate.set()
        for ticket in (first, *rest):
            await ticket

    run(model, story)
    assert model.batches == [1, 5]


def test_a_poisoned_request_fails_alone() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        outcomes = await asyncio.gather(*(submit(engine, POISON if number == 3 else 1.0) for number in range(8)))
        assert isinstance(outcomes[3], Failed)
        assert isinstance(outcomes[3].error, ModelError)
        assert "poison" in str(outcomes[3].error)
        assert [value(outcome) for index, outcome in enumerate(outcomes) if index != 3] == [4.0] * 7

    run(model, story)


def test_a_request_without_a_timeout_is_answered_while_others_keep_coming_with_one() -> None:
    async def story() -> None:
        clock = ManualClock()
        model = ScriptedModel(limits=Limits(max_batch_rows=1))
        async with Engine([model], clock=clock, batches_per_lane=1) as engine:
            model.gate.clear()
            answered: list[str] = []
            computing = submit(engine, 1.0)
            await until_computing(model)
            patient = submit(engine, 1.0)
            patient.then(lambda outcome: answered.append("without"))
            for _ in range(20):
                clock.advance(100_000_000)
                submit(engine, 1.0, timeout_ns=600_000_000_000).then(lambda outcome: answered.append("with"))
            last = submit(engine, 1.0, timeout_ns=600_000_000_000)
            model.gate.set()
            await asyncio.gather(computing, patient, last)
            assert answered.index("without") == 0, (
                "the others came later, and their limit is longer than the assumed one"
            )

    asyncio.run(story())


@pytest.mark.parametrize("nth", range(4))
def test_when_the_nth_forward_pass_fails_once_every_request_is_answered(nth: int) -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        if number == nth and not failed:
            failed.append(len(batch))
            raise RuntimeError("hiccup")

    failed: list[int] = []
    model = ScriptedModel(on_forward=fail, limits=Limits(max_batch_rows=4))

    async def story(engine: Engine) -> None:
        for _ in range(4):
            outcomes = await asyncio.gather(*(submit(engine, 1.0) for _ in range(4)))
            assert [value(outcome) for outcome in outcomes] == [4.0] * 4, "both halves are computed, and succeed"

    run(model, story, clock=ManualClock())  # with measured times a busy machine may make smaller batches
    assert failed == [4], "the n-th forward pass was reached, and failed"
    assert model.batches.count(2) == 2


def test_out_of_memory_halves_the_batch_and_answers_everyone() -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        if len(batch) > 2:
            raise OutOfDeviceMemory("no room")

    async def story(engine: Engine) -> None:
        outcomes = await asyncio.gather(*(submit(engine, 1.0) for _ in range(8)))
        assert [value(outcome) for outcome in outcomes] == [4.0] * 8
        assert engine.batcher.sizes.largest_rows == 4

    run(ScriptedModel(on_forward=fail), story)


def test_a_request_too_large_for_the_device_even_alone_fails_with_out_of_memory() -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        raise OutOfDeviceMemory("no room")

    async def story(engine: Engine) -> None:
        outcome = await submit(engine, 1.0)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, OutOfMemory)

    run(ScriptedModel(on_forward=fail), story)


def test_a_lost_device_fails_everyone_and_the_health_check() -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        raise DeviceLost("Xid 79")

    async def story(engine: Engine) -> None:
        outcomes = await asyncio.gather(*(submit(engine, 1.0) for _ in range(3)))
        assert all(isinstance(outcome, Failed) and isinstance(outcome.error, LaneLost) for outcome in outcomes)
        with pytest.raises(LaneLost, match="device is lost"):
            engine.check_health()
        assert not engine.is_ready()
        later = await submit(engine, 1.0)
        assert isinstance(later, Failed)

    run(ScriptedModel(on_forward=fail), story)


def test_a_model_that_hangs_is_given_up_and_its_requests_are_answered() -> None:
    model = ScriptedModel(limits=Limits(max_batch_rows=1, forward_timeout_s=0.05))

    async def story(engine: Engine) -> None:
        model.gate.clear()
        outcomes = await asyncio.gather(*(submit(engine, 1.0) for _ in range(4)))
        assert all(isinstance(outcome, Failed) and isinstance(outcome.error, LaneLost) for outcome in outcomes)
        assert isinstance(outcomes[0], Failed)
        assert isinstance(outcomes[0].error, BatchTimeout)
        with pytest.raises(LaneLost):
            engine.check_health()
        model.gate.set()

    run(model, story)


def test_a_cancelled_request_frees_its_place_and_is_never_computed() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        first = submit(engine, 1.0)
        await until_computing(model)

        async def wait(ticket: Ticket) -> Outcome:
            return await ticket

        tasks = [asyncio.create_task(wait(submit(engine, 1.0))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        assert len(engine.batcher.queue) == 2
        assert engine.ledger.snapshot().ended == {"Cancelled": 1}
        model.gate.set()
        await asyncio.gather(first, tasks[0], tasks[2])

    run(model, story)
    assert sum(model.batches) == 3


def test_a_client_that_leaves_while_its_batch_computes_is_counted_once() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        ticket = submit(engine, 1.0)
        await until_computing(model)
        ticket.cancel()
        assert engine.ledger.snapshot().ended == {"Cancelled": 1}
        assert engine.ledger.is_empty()
        model.gate.set()
        assert value(await submit(engine, 2.0)) == 8.0

    run(model, story)


def test_a_client_that_leaves_while_its_answer_is_finished_is_counted_once() -> None:
    finishing, go_on = threading.Event(), threading.Event()

    def on_split(sums: np.ndarray) -> None:
        finishing.set()
        go_on.wait()

    model = ScriptedModel(on_split=on_split)
    model.finishes = True

    async def story(engine: Engine) -> None:
        ticket = submit(engine, 1.0)
        await asyncio.to_thread(finishing.wait)
        ticket.cancel()
        engine.ledger.check()
        assert engine.ledger.snapshot().ended == {"Cancelled": 1}
        go_on.set()
        assert value(await submit(engine, 2.0)) == 8.0

    run(model, story)


def test_a_callback_is_called_once_and_its_exception_affects_no_other_request(caplog: pytest.LogCaptureFixture) -> None:
    def trouble(outcome: Outcome) -> None:
        raise RuntimeError("the caller's own")

    async def story(engine: Engine) -> None:
        answered: list[float] = []
        submit(engine, 1.0).then(trouble)
        submit(engine, 2.0).then(lambda outcome: answered.append(value(outcome)))
        last = submit(engine, 3.0)
        await last
        last.then(lambda outcome: answered.append(value(outcome)))
        assert answered == [8.0, 12.0]

    run(ScriptedModel(), story)
    assert "the caller's own" in caplog.text


def test_a_callback_that_cancels_a_request_of_the_same_batch_does_not_end_it_twice() -> None:
    async def story(engine: Engine) -> None:
        tickets = [submit(engine, 1.0) for _ in range(3)]
        tickets[0].then(lambda outcome: tickets[1].cancel())
        assert [type(await ticket) for ticket in tickets] == [Completed] * 3
        assert engine.ledger.snapshot().ended == {"Completed": 3}

    run(ScriptedModel(), story)


def test_a_full_queue_refuses_with_a_hint() -> None:
    model = ScriptedModel(limits=Limits(max_batch_rows=1, max_queue_requests=2))

    async def story(engine: Engine) -> None:
        model.gate.clear()
        running = [submit(engine, 1.0)]
        await until_computing(model)
        waiting = [submit(engine, 1.0) for _ in range(4)]
        refused = [await ticket for ticket in waiting if ticket.done()]
        assert len(refused) == 2
        assert all(isinstance(outcome, Rejected) and outcome.reason is Reason.QUEUE_FULL for outcome in refused)
        model.gate.set()
        for ticket in running + waiting:
            await ticket

    run(model, story)


def test_a_request_larger_than_the_largest_batch_is_refused() -> None:
    async def story(engine: Engine) -> None:
        outcome = await submit(engine, *[1.0] * 9)
        assert isinstance(outcome, Rejected)
        assert outcome.reason is Reason.TOO_LARGE

    run(ScriptedModel(), story)


def test_a_request_whose_deadline_passes_behind_a_slow_batch_expires_and_is_never_computed() -> None:
    model = ScriptedModel(latency_budget_ms=40)

    async def story(engine: Engine) -> None:
        model.gate.clear()
        first = submit(engine, 1.0)
        await until_computing(model)
        second = await submit(engine, 1.0)
        assert isinstance(second, Expired)
        model.gate.set()
        await first

    run(model, story)
    assert sum(model.batches) == 1


def test_a_clients_own_timeout_is_noticed_behind_a_slow_batch_of_a_model_without_a_budget() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        first = submit(engine, 1.0)
        await until_computing(model)
        assert isinstance(await submit(engine, 1.0, timeout_ns=20_000_000), Expired)
        model.gate.set()
        await first

    run(model, story)


def test_a_request_that_was_under_way_longer_than_its_client_waits_is_not_computed_even_by_an_idle_lane() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        outcome = await submit(engine, 1.0, timeout_ns=20_000_000, age_ns=21_000_000)
        assert isinstance(outcome, Expired)
        assert outcome.waited_ns >= 21_000_000
        assert isinstance(await submit(engine, 1.0, timeout_ns=10_000_000_000, age_ns=21_000_000), Completed)

    run(model, story)
    assert sum(model.batches) == 1


def test_limits_count_from_when_a_request_began_and_leave_time_for_the_return_of_its_answer() -> None:
    clock = ManualClock(now_ns=10**12)

    async def story() -> None:
        engine = Engine([ScriptedModel(latency_budget_ms=40)], clock=clock)
        first = engine._ticket(None, 1, "", 0, None, clock.now_ns() - 5_000_000)
        assert first.deadline_ns == clock.now_ns() + 35_000_000
        for _ in range(1000):
            engine.submit({}, rows=1, age_ns=5_000_000)
        second = engine._ticket(None, 1, "", 0, None, clock.now_ns() - 5_000_000)
        assert clock.now_ns() + 30_000_000 <= second.deadline_ns < clock.now_ns() + 30_100_000
        for _ in range(1000):
            engine.submit({}, rows=1, age_ns=39_000_000)
        assert engine._ticket(None, 1, "", 0, None, clock.now_ns()).deadline_ns == clock.now_ns() + 30_000_000
        endless = Engine([ScriptedModel()], clock=clock)._ticket(None, 1, "", 0, None, clock.now_ns())
        assert endless.deadline_ns == clock.now_ns() + NO_DEADLINE_NS

    asyncio.run(story())


def test_unusable_input_fails_its_own_request_only() -> None:
    def prepare(inputs: dict[str, np.ndarray]) -> None:
        if inputs["x"][0, 0] < 0:
            raise InvalidInput("x[0]: negative")

    async def story(engine: Engine) -> None:
        good, bad = await asyncio.gather(submit(engine, 1.0), submit(engine, -1.0))
        assert value(good) == 4.0
        assert isinstance(bad, Failed)
        assert isinstance(bad.error, InvalidInputError)
        assert "negative" in str(bad.error)

    run(ScriptedModel(prepare=prepare), story)


def test_a_finish_that_fails_for_one_request_fails_only_that_one() -> None:
    def on_split(sums: np.ndarray) -> None:
        if (sums == 8.0).any():
            raise ValueError("cannot finish this")

    async def story(engine: Engine) -> None:
        outcomes = await asyncio.gather(*(submit(engine, number) for number in (1.0, 2.0, 3.0)))
        assert [type(outcome).__name__ for outcome in outcomes] == ["Completed", "Failed", "Completed"]

    run(ScriptedModel(on_split=on_split), story)


def test_draining_finishes_what_was_accepted_and_refuses_newcomers() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        accepted = [submit(engine, 1.0) for _ in range(3)]
        drained = asyncio.create_task(engine.drain(timeout_s=10))
        await asyncio.sleep(0)
        newcomer = await submit(engine, 1.0)
        assert isinstance(newcomer, Rejected)
        assert newcomer.reason is Reason.DRAINING
        model.gate.set()
        assert await drained == 0
        assert [value(await ticket) for ticket in accepted] == [4.0] * 3

    run(model, story)
    assert model.closed


def test_a_drain_that_takes_too_long_says_how_many_it_left() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        ticket = submit(engine, 1.0)
        await until_computing(model)
        assert await engine.drain(timeout_s=0.01) == 1
        outcome = await ticket
        assert isinstance(outcome, Failed)
        model.gate.set()

    run(model, story)


def test_requests_of_different_shapes_never_share_a_batch() -> None:
    async def story(engine: Engine) -> None:
        wide = engine.submit({"x": np.ones((1, 6), np.float32)}, rows=1)
        narrow = submit(engine, 1.0)
        assert value(await wide) == 6.0
        assert value(await narrow) == 4.0

    run(ScriptedModel(), story)


def test_a_budget_no_batch_can_meet_is_said_loudly_and_replaced() -> None:
    said: list[str] = []
    model = ScriptedModel(latency_budget_ms=0.000001)

    async def main() -> None:
        async with Engine([model], report=said.append) as engine:
            assert value(await submit(engine, 1.0)) == 4.0

    asyncio.run(main())
    assert any("latency_budget_ms" in line and "cannot be met" in line for line in said)


def test_statistics_add_up() -> None:
    model = ScriptedModel()

    async def story(engine: Engine) -> None:
        await asyncio.gather(*(submit(engine, 1.0, 2.0) for _ in range(6)))
        statistics = engine.statistics()
        assert statistics.inference_count == 12
        assert statistics.success.count == statistics.queue.count == 6
        assert sum(one.compute_infer.count for one in statistics.by_batch_rows.values()) == statistics.execution_count

    run(model, story)


def test_a_reading_reports_waiting_requests_busy_time_and_missed_requests() -> None:
    model = ScriptedModel(limits=Limits(max_queue_requests=2))

    async def story(engine: Engine) -> None:
        before = engine.reading()
        model.gate.clear()
        computing = submit(engine, 1.0)
        await until_computing(model)
        waiting = [submit(engine, 1.0), submit(engine, 1.0)]
        refused = submit(engine, 1.0)
        during = engine.reading()
        assert (during.queued, during.received - before.received, during.missed) == (2, 4, 1)
        assert during.wait_ns > 0
        assert during.busy_ns > before.busy_ns, "the current batch counts already"
        model.gate.set()
        await asyncio.gather(computing, *waiting, refused)
        after = engine.reading()
        assert (after.queued, after.rows - before.rows, after.missed) == (0, 3, 1)
        assert before.busy_ns < after.busy_ns <= before.busy_ns + after.at_ns - before.at_ns

    run(model, story)


@pytest.mark.parametrize(("timeout_ns", "is_lowered"), [(None, True), (10**11, True), (1, False)])
def test_the_bound_falls_for_those_who_wait_as_long_as_the_budget(timeout_ns: int | None, is_lowered: bool) -> None:
    """A client whose own timeouts are hopeless does not lower it for the others."""
    model = ScriptedModel(latency_budget_ms=100)
    clock = ManualClock()

    async def story() -> None:
        async with Engine([model], clock=clock) as engine:
            assert engine.intake is not None
            model.gate.clear()
            first = submit(engine, 1.0)
            await until_computing(model)
            late = [submit(engine, 1.0, age_ns=10**12, timeout_ns=timeout_ns) for _ in range(100)]
            clock.advance(150_000_000)
            late.append(submit(engine, 1.0, age_ns=10**12, timeout_ns=timeout_ns))
            model.gate.set()
            await asyncio.gather(first, *late)
            assert (engine.intake.bound < UNBOUNDED) == is_lowered

    asyncio.run(story())


def test_requests_that_haproxy_has_refused_count_as_refused_and_as_missed() -> None:
    async def story(engine: Engine) -> None:
        engine.kept_out(7)
        assert engine.reading().missed == engine.reading().received == 7
        assert engine.statistics().fail.count == 7

    run(ScriptedModel(), story)
