"""Tests the engine of models with state: order within a sequence, batches across sequences, and their ends."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.reference import NumpyModel, accumulate_spec
from models.spec import Limits
from serving.core.backend import SequencePlace
from serving.core.errors import InvalidInput, ModelError
from serving.core.outcome import Cancelled, Completed, Expired, Reason, Rejected
from serving.runtime.sequences import SequenceEngine
from serving.testing.clock import ManualClock

FAILS = 1313


class Gated:
    """Computes a running sum. Forward passes wait while `gate` is cleared; `batches` holds their sizes."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []

    def __call__(self, x: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.gate.wait()
        if (x == FAILS).any():
            raise ValueError("asked to fail")
        if x.any():  # warm-up samples and padding are zeros
            self.batches.append(np.count_nonzero(x))
        return total + x, total + x


def engine_of(compute: Any, **more: Any) -> SequenceEngine:
    bounds = {"max_sequences", "max_queue_requests", "sequence_idle_s"} & more.keys()
    limits = {name: more.pop(name) for name in bounds}
    spec = accumulate_spec(limits=replace(Limits(max_batch_rows=8), **limits))
    return SequenceEngine([NumpyModel(spec.with_state(), compute)], spec, {"total": np.zeros((1, 1), np.int32)}, **more)


def send(engine: SequenceEngine, id: int | str, value: int, flags: str = "", rows: int = 1, **limits: Any) -> Any:
    """Submits one request of a sequence. flags: s for the first of the sequence, e for the last."""
    x = np.full((rows, 1), value, np.int32)
    return engine.submit_in(SequencePlace(id, "s" in flags, "e" in flags), {"x": x}, rows=rows, **limits)


async def sums(*submitted: Any) -> list[int]:
    outcomes = await asyncio.gather(*submitted)
    return [int(outcome.value["sum"][0, 0]) for outcome in outcomes]


def test_each_request_builds_on_the_one_before_and_sequences_do_not_mix() -> None:
    async def story() -> None:
        async with engine_of(Gated()) as engine:
            first = [send(engine, 5, 1, "s"), send(engine, 5, 2), send(engine, 5, 3, "e")]
            other = [send(engine, "5", 10, "s"), send(engine, "5", 20), send(engine, "5", 30)]
            assert await sums(*first, *other) == [1, 3, 6, 10, 30, 60]
            assert engine.facts() == {"sequences": 1, "waiting_for_their_turn": 0}
        engine.ledger.check()

    asyncio.run(story())


def test_requests_of_different_sequences_share_a_batch_and_those_of_one_never_do() -> None:
    async def story() -> None:
        compute = Gated()
        async with engine_of(compute) as engine:
            compute.gate.clear()
            head = send(engine, 99, 1, "s")
            await asyncio.sleep(0)
            requests = [send(engine, id, value, "s" if value == 1 else "") for value in (1, 2) for id in range(1, 5)]
            compute.gate.set()
            assert await sums(*requests) == [1] * 4 + [3] * 4
            await head
        assert len(compute.batches) == 3, "the first alone, then four, then the four that build on those"

    asyncio.run(story())


def test_a_sequence_has_to_begin_with_its_start_and_a_request_with_its_sequence() -> None:
    async def story() -> None:
        async with engine_of(Gated()) as engine:
            outcome = await send(engine, 7, 1)
            assert isinstance(outcome.error, InvalidInput)
            assert "sequence 7 to model 'accumulate' must specify the START flag" in str(outcome.error)
            await send(engine, 7, 1, "se")
            assert isinstance((await send(engine, 7, 1)).error, InvalidInput)
            outcome = await engine.submit({"x": np.ones((1, 1), np.int32)}, rows=1)
            assert "must specify a non-zero or non-empty sequence_id" in str(outcome.error)
            await send(engine, 8, 1, "s")
            assert "has 1 rows" in str((await send(engine, 8, 1, rows=2)).error)
        engine.ledger.check()

    asyncio.run(story())


def test_a_second_start_begins_anew() -> None:
    async def story() -> None:
        async with engine_of(Gated()) as engine:
            requests = [send(engine, 1, 5, "s"), send(engine, 1, 5), send(engine, 1, 7, "s"), send(engine, 1, 1)]
            assert await sums(*requests) == [5, 10, 7, 8]

    asyncio.run(story())


def test_failed_and_cancelled_requests_do_not_change_the_state() -> None:
    async def story() -> None:
        compute = Gated()
        async with engine_of(compute) as engine:
            requests = [send(engine, 1, 1, "s"), send(engine, 1, FAILS), send(engine, 1, 2)]
            assert isinstance((await requests[1]).error, ModelError)
            assert await sums(requests[0], requests[2]) == [1, 3]
            compute.gate.clear()
            held, leaving, staying = (send(engine, 1, value) for value in (10, 100, 1000))
            leaving.cancel()
            assert type(await leaving) is Cancelled
            impatient = send(engine, 1, 1, timeout_ns=1)
            compute.gate.set()
            assert await sums(held, staying) == [13, 1013]
            assert type(await impatient) is Expired
        engine.ledger.check()
        assert engine.ledger.is_empty()

    asyncio.run(story())


def test_a_sequence_left_alone_is_forgotten_and_one_at_work_is_not() -> None:
    async def story() -> None:
        clock = ManualClock()
        async with engine_of(Gated(), clock=clock, sequence_idle_s=0.04) as engine:
            await send(engine, 1, 1, "s")
            clock.advance(30_000_000)
            await send(engine, 2, 1, "s")
            clock.advance(15_000_000)
            async with asyncio.timeout(10):
                while engine.facts()["sequences"] == 2:  # noqa: ASYNC110  # the sweep is the engine's own
                    await asyncio.sleep(0.005)
            assert "START" in str((await send(engine, 1, 1)).error)
            assert await sums(send(engine, 2, 1)) == [2]

    asyncio.run(story())


def test_open_sequences_and_their_waiting_requests_are_bounded() -> None:
    async def story() -> None:
        compute = Gated()
        async with engine_of(compute, max_sequences=1, max_queue_requests=2) as engine:
            compute.gate.clear()
            requests = [send(engine, 1, 1, "s"), send(engine, 1, 1), send(engine, 1, 1)]
            outcome = await send(engine, 1, 1)
            assert isinstance(outcome, Rejected)
            assert outcome.reason is Reason.QUEUE_FULL
            assert (await send(engine, 2, 1, "s")).reason is Reason.TOO_MANY_SEQUENCES
            compute.gate.set()
            assert await sums(*requests) == [1, 2, 3]

    asyncio.run(story())


def test_draining_answers_every_request() -> None:
    async def story() -> None:
        compute = Gated()
        engine = engine_of(compute)
        await engine.open()
        compute.gate.clear()
        requests = [send(engine, 1, 1, "s"), send(engine, 1, 1), send(engine, 1, 1)]
        draining = asyncio.create_task(engine.drain(timeout_s=10))
        await asyncio.sleep(0)
        compute.gate.set()
        outcomes = await asyncio.gather(*requests)
        assert await draining == 0
        assert [type(outcome) for outcome in outcomes] == [Completed, Rejected, Rejected]
        engine.close()
        engine.ledger.check()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replicas": 2}, "replicas: must be 1 for a model with state"),
        ({"decoupled": True}, "state: a decoupled model"),
    ],
)
def test_a_spec_that_cannot_keep_state_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        accumulate_spec(**changes)


def test_a_model_that_writes_into_the_state_and_fails_leaves_it_as_it_was() -> None:
    def add(x: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        total += x
        if (x == FAILS).any():
            raise ValueError("asked to fail")
        return total.copy(), total

    async def story() -> None:
        async with engine_of(add) as engine:
            assert await sums(send(engine, 1, 5, "s")) == [5]
            assert isinstance((await send(engine, 1, FAILS)).error, ModelError)
            assert await sums(send(engine, 1, 2), send(engine, 1, 3, "e")) == [7, 10]

    asyncio.run(story())


def test_requests_that_are_withdrawn_while_they_wait_for_their_turn_leave_nothing_behind() -> None:
    async def story() -> None:
        compute = Gated()
        async with engine_of(compute, max_queue_requests=4) as engine:
            compute.gate.clear()
            first = send(engine, 1, 1, "s")
            for _ in range(1000):
                leaving = send(engine, 1, 1)
                leaving.cancel()
                assert type(await leaving) is Cancelled
            assert not engine._sequences[1].waiting
            last = send(engine, 1, 2, "e")
            compute.gate.set()
            assert await sums(first, last) == [1, 3]

    asyncio.run(story())
