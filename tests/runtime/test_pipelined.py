"""Tests a lane with an asynchronous device: batches are launched ahead, and errors reach their own requests."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from models.base import DeviceLost, OutOfDeviceMemory
from models.spec import Limits
from serving.core.errors import BatchTimeout, LaneLost, ModelError
from serving.core.outcome import Completed, Failed, Outcome
from serving.runtime.engine import Engine
from serving.runtime.ticket import Ticket
from serving.testing.models import POISON, AsynchronousModel


def run(model: AsynchronousModel, story: Callable[[Engine], Awaitable[None]]) -> None:
    """Runs `story` with a warm engine. Afterwards no request may be open."""

    async def play() -> None:
        async with Engine([model]) as engine:
            await story(engine)
        assert engine.ledger.is_empty()
        engine.ledger.check()
        assert not engine._open_tickets

    asyncio.run(play())


def submit(engine: Engine, value: float) -> Ticket:
    return engine.submit({"x": np.full((1, 4), value, np.float32)}, rows=1)


async def answers(tickets: list[Ticket]) -> list[float | str]:
    """Returns the sum of each request, or the name of its error."""
    return [_answer(outcome) for outcome in await asyncio.gather(*tickets)]


def _answer(outcome: Outcome) -> float | str:
    if isinstance(outcome, Completed):
        assert isinstance(outcome.value, dict)
        return float(outcome.value["sum"][0, 0])
    assert isinstance(outcome, Failed)
    return type(outcome.error).__name__


async def two_in_flight(model: AsynchronousModel, engine: Engine, first: float = 1.0) -> list[Ticket]:
    """Closes the gate, so that the device finishes no batch, and launches a batch of one and a full one behind it."""
    model.gate.clear()
    tickets = [submit(engine, first)]
    await asyncio.to_thread(model.launched.acquire)
    tickets += [submit(engine, float(number)) for number in range(8)]
    await asyncio.to_thread(model.launched.acquire)
    return tickets


def test_a_full_batch_is_on_the_devices_queue_before_the_one_ahead_is_done() -> None:
    model = AsynchronousModel()

    async def story(engine: Engine) -> None:
        tickets = await two_in_flight(model, engine)
        assert model.batches == []  # none was computed yet
        assert engine.batches_in_flight() == 2
        model.gate.set()
        assert await answers(tickets) == [4.0] + [4.0 * number for number in range(8)]

    run(model, story)


def test_the_poisoned_of_one_batch_fails_alone_while_the_next_is_in_flight() -> None:
    model = AsynchronousModel()

    async def story(engine: Engine) -> None:
        model.gate.clear()
        ahead = [submit(engine, value) for value in (1.0, POISON, 2.0)]
        await asyncio.to_thread(model.launched.acquire)
        behind = [submit(engine, float(number)) for number in range(8)]
        await asyncio.to_thread(model.launched.acquire)
        model.gate.set()
        assert await answers(ahead) == [4.0, "ModelError", 8.0]
        assert await answers(behind) == [4.0 * number for number in range(8)]
        engine.check_health()

    run(model, story)


@pytest.mark.parametrize("nth", range(8))
@pytest.mark.parametrize("where", ["on_launch", "on_forward"])
def test_when_the_nth_launch_or_collection_fails_once_every_request_is_answered(where: str, nth: int) -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        if number == nth and len(failed) == 0:
            failed.append(nth)
            raise ValueError("once")

    failed: list[int] = []
    model = AsynchronousModel(limits=Limits(max_batch_rows=4), **{where: fail})

    async def story(engine: Engine) -> None:
        for _ in range(3):
            found = await answers([submit(engine, 1.0) for _ in range(8)])
            assert set(found) <= {4.0, "ModelError"}
            assert found.count("ModelError") <= 1

    run(model, story)


@pytest.mark.parametrize("where", ["on_launch", "on_forward"])
def test_out_of_memory_at_either_end_halves_the_batch_and_answers_everyone(where: str) -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        if len(batch) > 2:
            raise OutOfDeviceMemory("no room")

    async def story(engine: Engine) -> None:
        assert await answers([submit(engine, 1.0) for _ in range(8)]) == [4.0] * 8
        assert engine.batcher.sizes.largest_rows in (4, 2)  # 2 if they did not all share one batch

    run(AsynchronousModel(**{where: fail}), story)


@pytest.mark.parametrize("where", ["on_launch", "on_forward"])
def test_a_lost_device_fails_both_batches_and_the_health_check(where: str) -> None:
    def fail(number: int, batch: np.ndarray) -> None:
        if number == (1 if where == "on_launch" else 0):
            raise DeviceLost("Xid 79")

    model = AsynchronousModel(**{where: fail})

    async def story(engine: Engine) -> None:
        tickets = await two_in_flight(model, engine)
        model.gate.set()
        assert set(await answers(tickets)) <= {"LaneLost", "BatchTimeout"}
        with pytest.raises(LaneLost):
            engine.check_health()

    run(model, story)


def test_a_device_that_never_answers_is_given_up() -> None:
    model = AsynchronousModel(limits=Limits(max_batch_rows=8, forward_timeout_s=0.5))

    async def story(engine: Engine) -> None:
        tickets = await two_in_flight(model, engine)
        outcomes = await asyncio.gather(*tickets)
        assert all(isinstance(outcome, Failed) and isinstance(outcome.error, BatchTimeout) for outcome in outcomes)
        model.gate.set()

    run(model, story)


def test_times_are_the_devices_own() -> None:
    async def story(engine: Engine) -> None:
        outcome = await submit(engine, 1.0)
        assert isinstance(outcome, Completed)
        assert outcome.timings.compute_ns == 2_000

    run(AsynchronousModel(), story)


def test_an_error_of_the_models_code_is_a_model_error() -> None:
    async def story(engine: Engine) -> None:
        (outcome,) = await asyncio.gather(submit(engine, POISON))
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, ModelError)
        assert "poison" in str(outcome.error)

    run(AsynchronousModel(), story)
