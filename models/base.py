"""What a lane drives: the `Model` protocol, and the values that pass between it and the runtime."""

from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from models.datatypes import datatype_name, numpy_type
from models.spec import ModelSpec

Tensors = dict[str, np.ndarray]


def is_of(array: np.ndarray, datatype: str) -> bool:
    """Whether the array can be sent as this Open Inference datatype, in either order of bytes."""
    if datatype == "BYTES":
        return array.dtype.kind in "OSU"
    if datatype == "BF16":  # as bits, where the package for it is not installed
        return array.dtype.name == "bfloat16" or array.dtype == np.uint16
    return array.dtype.newbyteorder("<") == numpy_type(datatype).newbyteorder("<")


def datatype_of(array: np.ndarray) -> str:
    """The Open Inference name of an array's type, or numpy's own where there is none."""
    return datatype_name(array.dtype)


class InvalidInput(Exception):
    """`prepare` cannot use this input (a JPEG that is none, say). The client is told the text."""


class OutOfDeviceMemory(Exception):
    """The batch does not fit into the device's memory. A smaller one may."""


class DeviceLost(Exception):
    """The device is unusable until the process is restarted."""


class Bucket(NamedTuple):
    """The padded shape of one batch; length is 1 where nothing is padded."""

    rows: int
    length: int


class Prepared(NamedTuple):
    """One request, ready to be collated. A tuple, since it is made for every request and a dataclass costs thrice.

    group: only requests of equal group may share a batch.
    length: size of the padded dimension, 1 if there is none.
    parameters: what the client said beside the inputs, for a model that takes parameters; equal within a batch.
    """

    tensors: Tensors
    rows: int
    group: Hashable
    length: int
    parameters: Mapping[str, object] | None = None


class Collected(NamedTuple):
    """What became of a batch. How long copying in, computing and copying out took is by the device's own clock, 0 if it
    has none."""

    outputs: Tensors
    copy_ns: int = 0
    compute_ns: int = 0
    copy_back_ns: int = 0


class GeneratingModel(Protocol):
    """A loaded model that gives any number of answers to one request, declared by `decoupled: true`."""

    spec: ModelSpec
    device: str
    waits: bool
    """`generate` is an async generator."""

    def generate(self, inputs: Tensors, **parameters: Any) -> Iterator[Tensors] | AsyncIterator[Tensors]:
        """The answers to one request, each with every declared output. A generator: what stands between two `yield` is
        one step, and steps of several requests take turns in one thread. An async generator: its steps run in an event
        loop, and others go on while it awaits something. Closed when the client leaves. Raises `InvalidInput`.

        parameters: one argument of that name, for a model that takes parameters."""
        ...

    def close(self) -> None: ...


class Model(Protocol):
    """A loaded model. `forward` is only ever called from one thread; the rest may be called from others.

    One without a batch dimension is driven like any other: its tensors here are those of a request with a dimension of
    one row in front.
    """

    spec: ModelSpec
    device: str
    prepares: bool
    """`prepare` is the user's and may be slow: it runs in a thread pool, not on the event loop."""
    finishes: bool
    """`split` runs the user's `finish` and may be slow."""
    asynchronous: bool
    """The model is a `PipelinedModel`, and its device works while the host does something else."""

    def prepare(self, inputs: Tensors) -> Prepared:
        """One request's tensors, `[rows, ...]` each. Raises `InvalidInput`."""
        ...

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> object:
        """One padded batch of these requests, in whatever form `forward` likes. Computed once, if at all."""
        ...

    def forward(self, staged: object) -> Tensors:
        """Computes; returns outputs on the host, `[bucket.rows, ...]`. Raises `OutOfDeviceMemory`, `DeviceLost`."""
        ...

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> Sequence[Tensors | BaseException]:
        """The rows of each request, in order, padding cut off; or what was raised for one of them, where each is
        finished by itself. It may write into the outputs."""
        ...

    def sample(self, rows: int, length: int) -> Prepared:
        """A made-up request of that size, to warm up with."""
        ...

    def lengths(self) -> tuple[int, ...]:
        """The padded lengths, ascending; (1,) where nothing is padded."""
        ...

    def close(self) -> None: ...


class PipelinedModel(Model, Protocol):
    """`forward` in two steps, so that a batch can be on the device's queue before the one ahead is done.

    `collate`, `launch` and `forward` are called from one thread, `collect` from any. Both raise as `forward` does; what
    goes wrong on the device is often known only when the batch is collected.
    """

    def launch(self, staged: object) -> object:
        """Has the device compute the batch, and does not wait for it."""
        ...

    def collect(self, launched: object) -> Collected:
        """Waits until it is computed."""
        ...


@runtime_checkable
class TunableModel(Protocol):
    """A model that can be computed in several ways, and tries which is fastest."""

    tunable: bool
    """There is something to try."""

    def tune(self, measured: Sequence[Bucket], row_ladder: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Called once, before the first request, in the thread that will call `forward`. From then on batches are
        computed in the fastest way whose outputs are right.

        measured: the batches that are likely to come.
        row_ladder: the answer of another lane of the same model, to be given again.
        Returns the row counts that batches should be padded to, ascending, or None if any will do.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """How it is computed, and what else was tried, for whoever wants to look behind."""
        ...
