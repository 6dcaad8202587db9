"""The `Model` protocol, through which a lane runs a model, and the values exchanged between model and runtime."""

from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from models.datatypes import datatype_name, numpy_type
from models.spec import ModelSpec

Tensors = dict[str, np.ndarray]


def is_of(array: np.ndarray, datatype: str) -> bool:
    """Returns whether the array can be sent as this Open Inference datatype; both byte orders are accepted."""
    if datatype == "BYTES":
        return array.dtype.kind in "OSU"
    if datatype == "BF16":  # uint16 holds the raw bits where ml_dtypes is not installed
        return array.dtype.name == "bfloat16" or array.dtype == np.uint16
    return array.dtype.newbyteorder("<") == numpy_type(datatype).newbyteorder("<")


def datatype_of(array: np.ndarray) -> str:
    """Returns the Open Inference name of an array's type, or numpy's name if there is none."""
    return datatype_name(array.dtype)


class InvalidInput(Exception):
    """An input that `prepare` cannot use (for example, a corrupt JPEG). The text is sent to the client."""


class OutOfDeviceMemory(Exception):
    """The batch does not fit into the device's memory. A smaller batch may fit."""


class DeviceLost(Exception):
    """The device is unusable until the process is restarted."""


class Bucket(NamedTuple):
    """The padded shape of one batch; length is 1 if no tensor is padded."""

    rows: int
    length: int


@dataclass(slots=True)
class Prepared:
    """One request, ready to be collated. It is never changed.

    Not `frozen` because one is made per request and `frozen` would cost three times as much.

    group: requests may share a batch only if their groups are equal.
    length: size of the padded dimension, 1 if there is none.
    parameters: the request's parameters, for a model that takes parameters; equal within a batch.
    """

    tensors: Tensors
    rows: int
    group: Hashable
    length: int
    parameters: Mapping[str, object] | None = None


class Collected(NamedTuple):
    """The outputs of a batch, and the times of copying in, computing and copying out. Times are in ns by the device's
    clock, 0 if the device has none."""

    outputs: Tensors
    copy_ns: int = 0
    compute_ns: int = 0
    copy_back_ns: int = 0


class GeneratingModel(Protocol):
    """A loaded model that yields any number of answers to one request, declared by `decoupled: true`."""

    spec: ModelSpec
    device: str
    waits: bool
    """`generate` is an async generator."""

    def generate(self, inputs: Tensors, **parameters: Any) -> Iterator[Tensors] | AsyncIterator[Tensors]:
        """Yields the answers to one request, each with every declared output. The code between two `yield` is one step.
        The steps of generators are interleaved in one thread. The steps of async generators run in an event loop, and
        other requests continue while one awaits. The generator is closed when the client disconnects. Raises
        `InvalidInput`.

        parameters: one argument of that name, for a model that takes parameters."""
        ...

    def close(self) -> None: ...


class Model(Protocol):
    """A loaded model. `forward` is called from one thread only; the other methods may be called from any thread.

    A model without a batch dimension is run like any other: here its tensors have a leading dimension of one row.
    """

    spec: ModelSpec
    device: str
    prepares: bool
    """`prepare` calls the user's code and may be slow: it runs in a thread pool, not on the event loop."""
    finishes: bool
    """`split` runs the user's `finish` and may be slow."""
    asynchronous: bool
    """The model is a `PipelinedModel`: its device computes while the host does something else."""

    def prepare(self, inputs: Tensors) -> Prepared:
        """Converts one request's tensors, `[rows, ...]` each. Raises `InvalidInput`."""
        ...

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> object:
        """Builds one padded batch of these requests, in the form that `forward` takes. It is computed at most once."""
        ...

    def forward(self, staged: object) -> Tensors:
        """Computes a batch and returns its outputs on the host, `[bucket.rows, ...]`. Raises `OutOfDeviceMemory`,
        `DeviceLost`."""
        ...

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> Sequence[Tensors | BaseException]:
        """Returns the rows of each request, in order and without padding. If requests are finished one by one, the
        entry of a request that failed is its exception. May write into the outputs."""
        ...

    def sample(self, rows: int, length: int) -> Prepared:
        """Makes up a request of this size for the warm-up."""
        ...

    def lengths(self) -> tuple[int, ...]:
        """Returns the padded lengths, ascending; (1,) if no tensor is padded."""
        ...

    def close(self) -> None: ...


class PipelinedModel(Model, Protocol):
    """A model whose `forward` has two steps, so that a batch can be enqueued on the device before the previous one is
    done.

    `collate`, `launch` and `forward` are called from one thread, `collect` from any. `launch` and `collect` raise what
    `forward` raises; errors of the device often appear only when the batch is collected.
    """

    def launch(self, staged: object) -> object:
        """Enqueues the batch on the device without waiting for it."""
        ...

    def collect(self, launched: object) -> Collected:
        """Waits until the batch is computed, and returns its outputs."""
        ...


@runtime_checkable
class TunableModel(Protocol):
    """A model with several variants of its computation, of which it selects the fastest."""

    tunable: bool
    """The model has variants to try."""

    def tune(self, measured: Sequence[Bucket], row_ladder: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Selects the fastest variant with correct outputs; later batches are computed with it. Called once, before
        the first request, in the thread that will call `forward`.

        measured: the shapes of batches that are expected.
        row_ladder: the result of another lane of the same model, which this lane must return too.
        Returns the row counts that batches should be padded to, ascending, or None if any number will do.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """Returns the variant in use and the variants that were tried, for the model's config endpoint."""
        ...
