"""What a lane drives: the `Model` protocol, and the values that pass between it and the runtime."""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from models.spec import ModelSpec

Tensors = dict[str, np.ndarray]


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
    """

    tensors: Tensors
    rows: int
    group: Hashable
    length: int


class GeneratingModel(Protocol):
    """A loaded model that gives any number of answers to one request, declared by `decoupled: true`."""

    spec: ModelSpec
    device: str

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        """The answers to one request, each with every declared output. A generator: what stands between two `yield` is
        one step, and steps of several requests take turns in one thread. Closed when the client leaves. Raises
        `InvalidInput`."""
        ...

    def close(self) -> None: ...


class Model(Protocol):
    """A loaded model. `forward` is only ever called from one thread; the rest may be called from others."""

    spec: ModelSpec
    device: str
    prepares: bool
    """`prepare` is the user's and may be slow: it runs in a thread pool, not on the event loop."""
    finishes: bool
    """`split` runs the user's `finish` and may be slow."""

    def prepare(self, inputs: Tensors) -> Prepared:
        """One request's tensors, `[rows, ...]` each. Raises `InvalidInput`."""
        ...

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> object:
        """One padded batch of these requests, in whatever form `forward` likes."""
        ...

    def forward(self, staged: object) -> Tensors:
        """Computes; returns outputs on the host, `[bucket.rows, ...]`. Raises `OutOfDeviceMemory`, `DeviceLost`."""
        ...

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> list[Tensors]:
        """The rows of each request, in order, padding cut off."""
        ...

    def sample(self, rows: int, length: int) -> Prepared:
        """A made-up request of that size, to warm up with."""
        ...

    def lengths(self) -> tuple[int, ...]:
        """The padded lengths, ascending; (1,) where nothing is padded."""
        ...

    def close(self) -> None: ...
