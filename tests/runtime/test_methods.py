"""Tests a model's own `prepare` and `finish` in their threads: order, withdrawal, deadlines and hanging calls."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from models.base import Prepared, Tensors
from models.spec import Limits
from serving.core.errors import LaneLost
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Reason, Rejected
from serving.runtime.calls import AHEAD
from serving.runtime.engine import Engine
from serving.runtime.ticket import Ticket
from serving.testing.clock import ManualClock
from serving.testing.models import ScriptedModel

THREADS = 2


class Preparing:
    """A `prepare` that records its value and waits while `gate` is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.values: list[float] = []

    def __call__(self, inputs: Tensors) -> None:
        self.values.append(float(inputs["x"][0, 0]))
        self.begun.release()
        self.gate.wait()


class FinishingModel(ScriptedModel):
    """A model whose `finish` waits until `finishing` is set."""

    finishes = True

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.finishing = threading.Event()

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> list[Tensors]:
        self.finishing.wait()
        return super().split(outputs, parts)


def submit(engine: Engine, value: float, **options: object) -> Ticket:
    return engine.submit({"x": np.full((1, 4), value, np.float32)}, rows=1, **options)  # type: ignore[arg-type]


async def until_all_threads_prepare(preparing: Preparing) -> None:
    for _ in range(THREADS):
        await asyncio.to_thread(preparing.begun.acquire)


async def computed(engine: Engine, model: ScriptedModel, batches: int) -> None:
    async with asyncio.timeout(60):
        while len(model.batches) < batches or engine.batches_in_flight():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_requests_that_were_withdrawn_are_not_prepared_and_keep_no_place() -> None:
    preparing = Preparing()
    model = ScriptedModel(prepare=preparing, limits=Limits(max_queue_requests=16))

    async def story() -> None:
        async with Engine([model], prepare_threads=THREADS) as engine:
            stay = [submit(engine, 1.0) for _ in range(THREADS)]
            await until_all_threads_prepare(preparing)
            for _ in range(5000):
                leaving = submit(engine, 2.0)
                leaving.cancel()
                assert type(leaving.outcome) is Cancelled
            assert len(engine._methods._threads.handed_out) <= THREADS * (1 + AHEAD)
            assert not engine._methods._preparing.waiting
            after = submit(engine, 3.0)
            preparing.gate.set()
            for ticket in (*stay, after):
                assert type(await ticket) is Completed
        engine.ledger.check()

    asyncio.run(story())
    assert preparing.values == [1.0] * THREADS + [3.0]


def test_the_payload_of_a_withdrawn_request_is_let_go_while_others_are_prepared() -> None:
    preparing = Preparing()

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS) as engine:
            stay = [submit(engine, 1.0) for _ in range(THREADS)]
            await until_all_threads_prepare(preparing)
            leaving = submit(engine, 2.0)
            leaving.cancel()
            held = [call.work.args[1] for call in engine._methods._threads.handed_out if call.wanted]
            assert len(held) == THREADS
            assert not any((inputs["x"] == 2.0).any() for inputs in held)
            preparing.gate.set()
            await asyncio.gather(*stay)

    asyncio.run(story())


def test_a_request_expires_while_it_waits_to_be_prepared_or_is_being_prepared() -> None:
    preparing = Preparing()

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS) as engine:
            hanging = [submit(engine, 1.0, timeout_ns=50_000_000) for _ in range(THREADS)]
            await until_all_threads_prepare(preparing)
            waiting = [submit(engine, 2.0, timeout_ns=50_000_000) for _ in range(20)]
            patient = submit(engine, 3.0)
            async with asyncio.timeout(60):
                outcomes = await asyncio.gather(*hanging, *waiting)
            assert {type(outcome) for outcome in outcomes} == {Expired}
            assert engine.ledger.queued == 1
            preparing.gate.set()
            assert type(await patient) is Completed
        engine.ledger.check()

    asyncio.run(story())
    assert 2.0 not in preparing.values


def test_a_prepare_that_never_returns_loses_the_replica_and_every_request_fails() -> None:
    preparing = Preparing()
    model = ScriptedModel(prepare=preparing, limits=Limits(forward_timeout_s=0.05))

    async def story() -> None:
        async with Engine([model], prepare_threads=THREADS) as engine:
            hanging = [submit(engine, 1.0) for _ in range(4)]
            async with asyncio.timeout(60):
                outcomes = await asyncio.gather(*hanging)
            assert all(isinstance(one, Failed) and isinstance(one.error, LaneLost) for one in outcomes)
            assert not engine.is_ready()
            with pytest.raises(LaneLost, match="`prepare` or `finish` did not return"):
                engine.check_health()
            assert isinstance(await submit(engine, 1.0), Failed)
        engine.ledger.check()
        preparing.gate.set()

    asyncio.run(story())


def test_a_finish_that_never_returns_loses_the_replica_and_every_request_fails() -> None:
    model = FinishingModel(Limits(forward_timeout_s=0.05))

    async def story() -> None:
        async with Engine([model], prepare_threads=THREADS) as engine:
            async with asyncio.timeout(60):
                outcome = await submit(engine, 1.0)
            assert isinstance(outcome, Failed)
            assert isinstance(outcome.error, LaneLost)
            with pytest.raises(LaneLost, match="`finish`"):
                engine.check_health()
        engine.ledger.check()
        model.finishing.set()

    asyncio.run(story())


def test_a_finish_slower_than_the_model_fills_the_queue_instead_of_the_memory() -> None:
    model = FinishingModel(Limits(max_batch_rows=1, max_queue_requests=8))

    async def story() -> None:
        async with Engine([model], prepare_threads=THREADS) as engine:
            accepted = [submit(engine, 1.0) for _ in range(8)]
            await computed(engine, model, 8)
            refused = submit(engine, 1.0)
            assert isinstance(refused.outcome, Rejected)
            assert refused.outcome.reason is Reason.QUEUE_FULL
            model.finishing.set()
            await asyncio.gather(*accepted)
            assert type(await submit(engine, 1.0)) is Completed

    asyncio.run(story())


def test_a_tenant_with_much_to_prepare_does_not_hold_up_another() -> None:
    preparing = Preparing()

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS) as engine:
            flood = [submit(engine, 1.0, tenant="flood") for _ in range(50)]
            await until_all_threads_prepare(preparing)
            calm = submit(engine, 2.0, tenant="calm")
            preparing.gate.set()
            await asyncio.gather(*flood, calm)

    asyncio.run(story())
    assert preparing.values.index(2.0) <= THREADS * (1 + AHEAD) + THREADS


QUICK, SLOW, HANGS = 1.0, 2.0, 3.0
MS = 1_000_000


class ByValue:
    """A `prepare` that takes 6 ms of a manual clock for `SLOW`, and waits for the gate for `HANGS`."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.gate = threading.Event()
        self.hanging = threading.Semaphore(0)

    def __call__(self, inputs: Tensors) -> None:
        value = float(inputs["x"][0, 0])
        if value == SLOW:
            self.clock.advance(6 * MS)
        if value == HANGS:
            self.hanging.release()
            self.gate.wait()


def test_while_others_ask_a_tenant_whose_calls_are_slow_has_half_of_the_threads() -> None:
    clock = ManualClock()
    preparing = ByValue(clock)

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS, clock=clock) as engine:
            await submit(engine, SLOW, tenant="slow")
            await submit(engine, QUICK, tenant="quick")
            flood = [submit(engine, HANGS, tenant="slow") for _ in range(20)]
            await asyncio.to_thread(preparing.hanging.acquire)
            for _ in range(20):
                assert type(await submit(engine, QUICK, tenant="quick")) is Completed
            assert not preparing.hanging.acquire(blocking=False)
            clock.advance(10_000 * MS)  # the other tenant is not expected any longer
            flood.append(submit(engine, HANGS, tenant="slow"))
            await asyncio.to_thread(preparing.hanging.acquire)
            preparing.gate.set()
            await asyncio.gather(*flood)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_slow_call_is_noticed_though_its_request_was_withdrawn() -> None:
    clock = ManualClock()
    preparing = ByValue(clock)

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS, clock=clock) as engine:
            await submit(engine, QUICK, tenant="quick")
            leaving = submit(engine, HANGS, tenant="slow")
            await asyncio.to_thread(preparing.hanging.acquire)
            leaving.cancel()
            clock.advance(6 * MS)
            preparing.gate.set()
            while engine._methods._threads.handed_out:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            preparing.gate.clear()
            flood = [submit(engine, HANGS, tenant="slow") for _ in range(20)]
            assert type(await submit(engine, QUICK, tenant="quick")) is Completed
            preparing.gate.set()
            await asyncio.gather(*flood)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_the_urgent_are_prepared_first() -> None:
    preparing = Preparing()

    async def story() -> None:
        async with Engine([ScriptedModel(prepare=preparing)], prepare_threads=THREADS, clock=ManualClock()) as engine:
            usual = [submit(engine, 1.0) for _ in range(50)]
            await until_all_threads_prepare(preparing)
            urgent = submit(engine, 2.0, priority=1)
            preparing.gate.set()
            await asyncio.gather(*usual, urgent)

    asyncio.run(story())
    assert preparing.values.index(2.0) <= THREADS * (1 + AHEAD) + THREADS
