"""Tests the engine with a torch model on the scripted device, which fails at its n-th step.

Whichever step fails, every request gets its own correct answer or an error, and the engine continues.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import Limits, ModelSpec, TensorSpec
from serving.core.errors import LaneLost, ModelError
from serving.core.observer import NullObserver, Observer
from serving.core.outcome import Completed, Failed, Outcome
from serving.runtime.engine import Engine

SPEC = ModelSpec(
    name="doubler",
    factory="tests:Doubler",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
    limits=Limits(max_batch_rows=4, forward_timeout_s=20.0),
    tolerance=0.0,
)


class Doubler(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


class Trouble:
    """Raises an error once, at the n-th step of one kind after it was armed."""

    def __init__(self, kind: str, nth: int, error: Exception) -> None:
        self.kind, self.nth, self.error = kind, nth, error
        self.meanwhile: Callable[[], None] = lambda: None
        self.seen = -1
        self.armed = threading.Event()

    def __call__(self, kind: str, number: int) -> None:
        if self.armed.is_set() and kind == self.kind:
            self.seen += 1
            if self.seen == self.nth:
                self.meanwhile()
                raise self.error


def loaded(trouble: Trouble, seed: int, execution: str) -> tuple[TorchModel, ScriptedDevice]:
    device = ScriptedDevice(seed=seed, on_step=trouble)
    fields: dict[str, Any] = {name: getattr(SPEC, name) for name in ("name", "factory", "inputs", "outputs", "limits")}
    return load_module(ModelSpec(**fields, execution=execution), Doubler(), device), device


async def rounds(engine: Engine, count: int) -> list[Outcome]:
    """Submits `count` rounds of ten requests, each with a value of its own, and checks the answers. Returns all
    outcomes."""
    outcomes: list[Outcome] = []
    for number in range(count):
        values = range(number * 10, number * 10 + 10)
        tickets = [engine.submit({"x": np.full((1, 4), value, np.float32)}, rows=1) for value in values]
        found = await asyncio.gather(*tickets)
        for value, outcome in zip(values, found, strict=True):
            if isinstance(outcome, Completed):
                assert isinstance(outcome.value, dict)
                assert outcome.value["y"].tolist() == [[2.0 * value] * 4]
        outcomes += found
    return outcomes


class Halvings(NullObserver):
    """Records the reports that the largest batch was halved."""

    def __init__(self) -> None:
        self.reported: list[int] = []

    def batch_limit_halved(self, largest_rows: int) -> None:
        self.reported.append(largest_rows)


def play(
    trouble: Trouble, *, seed: int, execution: str, observer: Observer | None = None
) -> tuple[list[Outcome], Engine]:
    async def story() -> tuple[list[Outcome], Engine]:
        model, _ = loaded(trouble, seed, execution)
        async with Engine([model], observer=observer) as engine:
            trouble.armed.set()
            outcomes = await rounds(engine, 3)
            trouble.armed.clear()
            outcomes += await rounds(engine, 1)
            engine.check_health()
        engine.ledger.check()
        assert engine.ledger.is_empty()
        return outcomes, engine

    return asyncio.run(story())


@pytest.mark.parametrize("execution", ["auto", "eager"])
@pytest.mark.parametrize("kind", ["run", "copy", "replay", "enqueue copy", "enqueue replay"])
@pytest.mark.parametrize("nth", range(6))
def test_an_error_at_any_step_leaves_no_request_without_an_answer(kind: str, nth: int, execution: str) -> None:
    outcomes, _ = play(Trouble(kind, nth, RuntimeError("once")), seed=nth, execution=execution)
    assert all(isinstance(outcome, Completed) for outcome in outcomes[-10:])
    failed = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
    assert len(failed) <= 1  # a batch of one request is not tried again
    assert all(isinstance(error, ModelError) for error in failed)


@pytest.mark.parametrize("kind", ["run", "copy", "enqueue copy"])
@pytest.mark.parametrize("nth", range(4))
def test_out_of_memory_at_any_step_makes_batches_smaller_and_all_are_answered(kind: str, nth: int) -> None:
    trouble = Trouble(kind, nth, torch.OutOfMemoryError("CUDA out of memory"))
    halvings = Halvings()
    outcomes, engine = play(trouble, seed=nth, execution="eager", observer=halvings)
    assert sum(not isinstance(outcome, Completed) for outcome in outcomes) <= 1
    assert trouble.seen >= nth
    assert engine.batcher.sizes.largest_rows == 2
    assert halvings.reported == [2]


@pytest.mark.parametrize("execution", ["auto", "eager"])
@pytest.mark.parametrize("nth", range(4))
def test_a_device_that_is_lost_at_any_step_loses_its_lane_and_every_request_gets_an_error(
    nth: int, execution: str
) -> None:
    async def story() -> None:
        model, device = loaded(trouble, nth, execution)
        trouble.meanwhile = partial(setattr, device, "lost", True)
        async with Engine([model]) as engine:
            trouble.armed.set()
            outcomes = await rounds(engine, 2)
            lost = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
            assert lost
            assert all(isinstance(error, LaneLost) for error in lost)
            with pytest.raises(LaneLost):
                engine.check_health()
        engine.ledger.check()

    trouble = Trouble("copy", nth, RuntimeError("CUDA error: an illegal memory access was encountered"))
    asyncio.run(story())


@pytest.mark.parametrize("execution", ["auto", "eager"])
@pytest.mark.parametrize("nth", range(4))
def test_an_error_on_one_of_two_devices_is_made_good_and_the_other_goes_on(nth: int, execution: str) -> None:
    async def story() -> None:
        models, devices = zip(
            loaded(trouble, nth, execution), loaded(Trouble("", 0, error), nth + 1, execution), strict=True
        )
        async with Engine(list(models)) as engine:
            steps = [device.counts.total() for device in devices]
            trouble.armed.set()
            outcomes = await rounds(engine, 4)
            assert all(device.counts.total() > before for device, before in zip(devices, steps, strict=True))
            engine.check_health()
        assert sum(not isinstance(outcome, Completed) for outcome in outcomes) <= 1  # a batch of one is not tried again
        engine.ledger.check()

    error = RuntimeError("once")
    trouble = Trouble("copy", nth, error)
    asyncio.run(story())
    assert trouble.seen >= nth
