"""Tests an engine with several lanes, as on several GPUs, and one queue."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from models.base import DeviceLost
from models.spec import Limits
from serving.core.errors import LaneLost
from serving.core.outcome import Completed, Failed
from serving.runtime.engine import Engine
from serving.testing.models import AsynchronousModel, ScriptedModel

Story = Callable[[Engine], Awaitable[None]]


def one_row() -> dict[str, np.ndarray]:
    return {"x": np.ones((1, 4), np.float32)}


def run(models: list[ScriptedModel], story: Story) -> None:
    async def play() -> None:
        async with Engine(models) as engine:
            await story(engine)

    asyncio.run(asyncio.wait_for(play(), 10))


@pytest.mark.parametrize("kind", [ScriptedModel, AsynchronousModel])
def test_two_lanes_compute_at_the_same_time_and_each_unloads_its_model(kind: type[ScriptedModel]) -> None:
    models = [kind(limits=Limits(max_batch_rows=1)) for _ in range(2)]

    async def story(engine: Engine) -> None:
        assert engine.lane_count == engine.reading().lanes == 2
        for model in models:
            model.gate.clear()
        tickets = [engine.submit(one_row(), rows=1) for _ in range(2)]
        for model in models:
            await asyncio.to_thread(model.entered.acquire)
        for model in models:
            model.gate.set()
        for ticket in tickets:
            assert isinstance(await ticket, Completed)

    run(models, story)
    assert [model.batches for model in models] == [[1], [1]]
    assert all(model.closed for model in models)


def test_one_lost_gpu_fails_the_health_check_so_that_the_replica_is_replaced() -> None:
    def lose(number: int, batch: np.ndarray) -> None:
        raise DeviceLost("CUDA error: an illegal memory access was encountered")

    models = [AsynchronousModel(on_forward=lose), AsynchronousModel()]

    async def story(engine: Engine) -> None:
        outcome = await engine.submit(one_row(), rows=1)
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, LaneLost)
        with pytest.raises(LaneLost):
            engine.check_health()
        assert not engine.is_ready()

    run(models, story)
