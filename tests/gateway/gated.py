"""Models for tests that wait for a gate, or fail when they are asked to: in this process, so that tests reach in."""

import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from models.reference import NumpyModel
from models.spec import Limits, ModelSpec, TensorSpec

GATE = threading.Event()  # forward passes and generations wait while it is cleared
ENTERED = threading.Semaphore(0)  # released by each that waits
FAILS, WAITS = 13.0, 7.0  # input values


def spec(name: str = "gated", **changes: Any) -> ModelSpec:
    one = TensorSpec(name="x", datatype="FP32", shape=(-1, 1)), TensorSpec(name="y", datatype="FP32", shape=(-1, 1))
    changes = {"limits": Limits(max_batch_rows=1)} | changes
    return ModelSpec(name=name, factory="tests.gateway.gated:gated", inputs=one[:1], outputs=one[1:], **changes)


def state_spec(name: str = "sums", **changes: Any) -> ModelSpec:
    state = (TensorSpec(name="total", datatype="FP32", shape=(-1, 1)),)
    return spec(name, state=state, **changes)


def words_spec(name: str = "told") -> ModelSpec:
    text, word = (TensorSpec(name=each, datatype="FP32", shape=(-1, 1)) for each in ("x", "y"))
    limits = Limits(max_generations=1)
    return ModelSpec(
        name=name, factory="tests.gateway.gated:Told", inputs=(text,), outputs=(word,), decoupled=True, limits=limits
    )


def gated(spec: ModelSpec) -> NumpyModel:
    """Returns its input, or the sum so far of a model with state."""

    def compute(x: np.ndarray, *state: np.ndarray) -> tuple[np.ndarray, ...]:
        _wait_or_fail(x)
        return (x, *(total + x for total in state))

    return NumpyModel(spec, compute)


class Told:
    """A generating model: gives as many answers as its input says, at most 100."""

    def generate(self, inputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        _wait_or_fail(inputs["x"])
        for _ in range(min(100, int(inputs["x"][0, 0]))):
            yield {"y": inputs["x"]}


def _wait_or_fail(x: np.ndarray) -> None:
    if (x == FAILS).any():
        raise ValueError("told to fail")
    if (x == WAITS).any():
        ENTERED.release()
        assert GATE.wait(20)
