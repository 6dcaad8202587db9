"""Models in plain numpy, without torch, on which the whole system runs and is tested.

Factories for a configuration file: `models.reference:noop`, `:echo`, `:linear`, `:slow`, `:accumulate` (with `state`),
and `:Repeat` and `:Words`, which generate (`decoupled: true`). For tests, each has a function that returns a matching
spec (`noop_spec()` …).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from models.base import Bucket, Prepared, Tensors
from models.collate import collate, new_array, split_rows
from models.preparing import has_fixed_shapes, length_buckets, made_up_inputs, prepare_fixed, prepare_variable
from models.spec import ModelSpec, TensorSpec
from models.writing import Guarded, frozen

Compute = Callable[..., tuple[np.ndarray, ...]]


class NumpyModel:
    """A `models.base.Model` that calls a function from input arrays to a tuple of output arrays, in declared order. A
    missing optional input is None."""

    device = "cpu"
    prepares = False
    finishes = False
    asynchronous = False

    def __init__(self, spec: ModelSpec, compute: Compute, on_close: Callable[[], None] | None = None) -> None:
        self.spec = spec
        self._guarded = Guarded(lambda batch: compute(*[batch.get(name) for name in self._inputs]))
        self._on_close = on_close
        self._inputs = tuple(tensor.name for tensor in spec.inputs)
        self._outputs = tuple(tensor.name for tensor in spec.outputs)
        self._pads = {tensor.name: tensor.pad for tensor in spec.inputs if tensor.pad is not None}
        self._fixed = has_fixed_shapes(spec.inputs)
        self._padded_outputs = frozenset(
            tensor.name for tensor in spec.outputs if self._pads and tensor.row_shape[:1] == (-1,)
        )

    def prepare(self, inputs: Tensors) -> Prepared:
        return prepare_fixed(inputs) if self._fixed else prepare_variable(inputs, self._pads)

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> Tensors:
        return collate(parts, bucket, self._pads, new_array if self._guarded.writes else None)

    def forward(self, staged: object) -> Tensors:
        results = self._guarded(staged)  # type: ignore[arg-type]
        return dict(zip(self._outputs, results, strict=True))

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> list[Tensors]:
        return split_rows(outputs, parts, self._padded_outputs)

    def sample(self, rows: int, length: int) -> Prepared:
        return self.prepare(frozen(made_up_inputs(self.spec.inputs, rows, length)))

    def lengths(self) -> tuple[int, ...]:
        return length_buckets(None) if self._pads else (1,)

    def close(self) -> None:
        if self._on_close is not None:
            self._on_close()

    def __repr__(self) -> str:
        return f"<NumpyModel {self.spec.name}>"


def noop(spec: ModelSpec) -> NumpyModel:
    """Returns the first value of each row: the least work with which a test still detects interchanged rows."""
    return NumpyModel(spec, lambda x: (x[:, :1],))


def echo(spec: ModelSpec) -> NumpyModel:
    """Returns its inputs, of any types and shapes."""
    return NumpyModel(spec, lambda *inputs: inputs)


def linear(spec: ModelSpec, seed: int = 0) -> NumpyModel:
    """Computes y = xW + b, with seeded weights of the declared sizes."""
    random = np.random.default_rng(seed)
    width, classes = spec.inputs[0].shape[1], spec.outputs[0].shape[1]
    weight = random.standard_normal((width, classes), dtype=np.float32) / np.float32(width**0.5)
    bias = random.standard_normal(classes, dtype=np.float32)
    return NumpyModel(spec, lambda x: (x @ weight + bias,))


def slow(
    spec: ModelSpec,
    base_ms: float = 10.0,
    per_row_ms: float = 1.0,
    raise_on_value: float | None = None,
    hang_on_value: float | None = None,
) -> NumpyModel:
    """Echoes after base_ms + rows * per_row_ms. Raises for batches that hold `raise_on_value`, and hangs for batches
    that hold `hang_on_value`.

    A hanging forward pass ends with an error when the model is closed.
    """
    closed = Event()

    def compute(x: np.ndarray) -> tuple[np.ndarray]:
        time.sleep((base_ms + per_row_ms * len(x)) / 1e3)
        if raise_on_value is not None and np.any(x == raise_on_value):
            raise ValueError(f"told to fail on {raise_on_value}")
        if hang_on_value is not None and np.any(x == hang_on_value):
            closed.wait()
            raise RuntimeError("closed while hanging")
        return (x,)

    return NumpyModel(spec, compute, on_close=closed.set)


def accumulate(spec: ModelSpec) -> NumpyModel:
    """Returns the sum of all values of the sequence so far, which is its state."""
    return NumpyModel(spec, lambda x, total: (total + x, total + x))


class Repeat:
    """A generating model that yields the values of its input one by one, each after `step_ms`. Raises at
    `raise_on_value`."""

    def __init__(self, step_ms: float = 0.0, raise_on_value: int | None = None) -> None:
        self._step_s = step_ms / 1e3
        self._raise_on_value = raise_on_value

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        for value in inputs["in"].ravel():
            time.sleep(self._step_s)
            if value == self._raise_on_value:
                raise ValueError(f"told to fail on {value}")
            yield {"out": np.array([[value]], np.int32)}


class Words:
    """A generating model that yields a text word by word, like a language model."""

    def __init__(self, step_ms: float = 0.0) -> None:
        self._step_s = step_ms / 1e3

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        for word in inputs["text"].ravel()[0].split():
            time.sleep(self._step_s)
            yield {"word": np.array([[word]], dtype=object)}


def noop_spec(**changes: Any) -> ModelSpec:
    """Returns the spec of `noop`. Keyword arguments replace fields of the spec, here and below."""
    return _spec("noop", (_floats("x", 1024),), (_floats("y", 1),), changes)


def echo_spec(**changes: Any) -> ModelSpec:
    return _spec("echo", (_floats("x", 4),), (_floats("y", 4),), changes)


def linear_spec(**changes: Any) -> ModelSpec:
    return _spec("linear", (_floats("x", 16),), (_floats("y", 4),), changes)


def slow_spec(**changes: Any) -> ModelSpec:
    """Returns the spec of `slow`. `options` may hold base_ms, per_row_ms, raise_on_value and hang_on_value."""
    return _spec("slow", (_floats("x", 1),), (_floats("y", 1),), changes)


def accumulate_spec(**changes: Any) -> ModelSpec:
    state = (TensorSpec(name="total", datatype="INT32", shape=(-1, 1)),)
    inputs = (TensorSpec(name="x", datatype="INT32", shape=(-1, 1)),)
    outputs = (TensorSpec(name="sum", datatype="INT32", shape=(-1, 1)),)
    return _spec("accumulate", inputs, outputs, {"state": state} | changes)


def repeat_spec(**changes: Any) -> ModelSpec:
    """Returns the spec of `Repeat`. `options` may hold step_ms and raise_on_value."""
    inputs = (TensorSpec(name="in", datatype="INT32", shape=(-1, -1)),)
    outputs = (TensorSpec(name="out", datatype="INT32", shape=(-1, 1)),)
    return _spec("repeat", inputs, outputs, {"factory": "models.reference:Repeat", "decoupled": True} | changes)


def words_spec(**changes: Any) -> ModelSpec:
    """Returns the spec of `Words`. `options` may hold step_ms."""
    inputs = (TensorSpec(name="text", datatype="BYTES", shape=(-1, 1)),)
    outputs = (TensorSpec(name="word", datatype="BYTES", shape=(-1, 1)),)
    return _spec("words", inputs, outputs, {"factory": "models.reference:Words", "decoupled": True} | changes)


def _floats(name: str, width: int) -> TensorSpec:
    return TensorSpec(name=name, datatype="FP32", shape=(-1, width))


def _spec(name: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], changes: Any) -> ModelSpec:
    spec = ModelSpec(name=name, factory=f"models.reference:{name}", inputs=inputs, outputs=outputs)
    return replace(spec, **changes)
