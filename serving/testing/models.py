"""Scripted models for tests: answer with the sum of each row, fail where asked, block until released."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from models.base import Bucket, Collected, Prepared, Tensors
from models.spec import Limits, ModelSpec, TensorSpec

WARM_UP_PASS_S = 0.0003
POISON = 666.0  # an input value that makes the whole forward pass fail


class Staged(NamedTuple):
    """A collated batch. rows: the number of rows of its outputs, padding included."""

    x: np.ndarray
    rows: int


class ScriptedModel:
    """A model with input `x` FP32 [-1, width] and output `sum` FP32 [-1, 1], the sum of each row.

    on_forward: called before each forward pass with its number (from 0) and the batch; may raise.
    on_split: called with the sums before they are split; may raise.
    gate: forward passes block while this Event is cleared. entered: released once per forward pass.
    batches: rows of each forward pass. Warm-up passes are neither blocked nor counted. They take some time, the same
    for all sizes: from passes that took none, an engine would learn by chance which sizes pay.
    """

    device = "cpu"
    finishes = False
    asynchronous = False

    def __init__(
        self,
        *,
        name: str = "scripted",
        latency_budget_ms: float | None = None,
        limits: Limits | None = None,
        prepare: Callable[[Tensors], None] | None = None,
        on_forward: Callable[[int, np.ndarray], None] = lambda number, batch: None,
        on_split: Callable[[np.ndarray], None] = lambda sums: None,
    ) -> None:
        self.spec = ModelSpec(
            name=name,
            factory="serving.testing.models:ScriptedModel",
            inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, -1)),),
            outputs=(TensorSpec(name="sum", datatype="FP32", shape=(-1, 1)),),
            latency_budget_ms=latency_budget_ms,
            limits=limits or Limits(max_batch_rows=8),
        )
        self.prepares = prepare is not None
        self._prepare = prepare
        self._on_forward = on_forward
        self._on_split = on_split
        self.gate = threading.Event()
        self.gate.set()
        self._never = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []
        self.closed = False

    def prepare(self, inputs: Tensors) -> Prepared:
        if self._prepare is not None:
            self._prepare(inputs)
        x = inputs["x"]
        return Prepared(inputs, len(x), x.shape[1:], 1)

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> Staged:
        return Staged(np.concatenate([part.tensors["x"] for part in parts]), bucket.rows)

    def forward(self, staged: object) -> Tensors:
        assert isinstance(staged, Staged)
        x, rows = staged
        if np.isnan(x).any():  # a sample of the warm-up
            self._never.wait(WARM_UP_PASS_S)
        else:
            self.entered.release()
            self.gate.wait()
            self._on_forward(len(self.batches), x)
            self.batches.append(len(x))
        if (x == POISON).any():
            raise ValueError("poison")
        sums = np.zeros((rows, 1), np.float32)
        sums[: len(x)] = x.sum(axis=1, keepdims=True)
        return {"sum": sums}

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> list[Tensors]:
        self._on_split(outputs["sum"])
        ends = np.cumsum([part.rows for part in parts])
        return [{"sum": outputs["sum"][end - part.rows : end]} for part, end in zip(parts, ends, strict=True)]

    def sample(self, rows: int, length: int) -> Prepared:
        return Prepared({"x": np.full((rows, 4), np.nan, np.float32)}, rows, (4,), 1)

    def lengths(self) -> tuple[int, ...]:
        return (1,)

    def close(self) -> None:
        self.closed = True


class AsynchronousModel(ScriptedModel):
    """A `PipelinedModel`: `launch` only stores the batch; `collect` does the work of `ScriptedModel.forward`, including
    blocking and failing.

    on_launch: called at each launch except warm-up with its number (from 0) and the batch; may raise.
    """

    asynchronous = True

    def __init__(
        self, *, on_launch: Callable[[int, np.ndarray], None] = lambda number, batch: None, **more: Any
    ) -> None:
        super().__init__(**more)
        self._on_launch = on_launch
        self.launches: list[int] = []
        self.launched = threading.Semaphore(0)

    def launch(self, staged: object) -> object:
        assert isinstance(staged, Staged)
        if not np.isnan(staged.x).any():
            number = len(self.launches)
            self.launches.append(len(staged.x))
            self.launched.release()
            self._on_launch(number, staged.x)
        return staged

    def collect(self, launched: object) -> Collected:
        return Collected(super().forward(launched), 1_000, 2_000)

    def forward(self, staged: object) -> Tensors:
        return self.collect(self.launch(staged)).outputs
