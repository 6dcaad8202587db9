"""A model as HTTP and gRPC see it, with everything that a request to it may need."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.api.admission.room import Room
from serving.api.shared_memory.regions import Regions
from serving.core.backend import Backend, Generating, Sequencing
from serving.core.statistics import ModelStatistics, WireTimes
from serving.core.witness import Witness
from serving.protocol.messages import TensorDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as HTTP and gRPC see it.

    generator: only for generating models; `backend` then rejects requests that expect exactly one answer.
    sequencer: only for models with state; `backend` then rejects requests without a sequence.
    config: returns the model's settings, shown under `parameters` of the model's configuration.
    takes_parameters: pass a request's own parameters to the backend.
    witnesses: notified of every answered request. of_failures: notified of those with a status of 500 or above.
    regions: the shared memory that requests may refer to; None if they may not.
    totals: returns the statistics of all replicas; None if this process has the only one.
    trace: reads and changes the settings of tracing of this model, see `operations.Switches`.
    wire: counts the time that decoding and encoding its messages takes. room: for the bodies of its requests.
    """

    name: str
    backend: Backend
    generator: Generating | None = None
    sequencer: Sequencing | None = None
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    version: str = "1"
    platform: str = "pytorch"
    description: str = ""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    example: str | None = None
    config: Callable[[], dict[str, Any]] = dict
    takes_parameters: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    witnesses: tuple[Witness, ...] = ()
    of_failures: Witness | None = None
    regions: Regions | None = None
    totals: Callable[[], Awaitable[ModelStatistics]] | None = None
    trace: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]] | None = None
    wire: WireTimes = field(default_factory=WireTimes)
    room: Room = field(default_factory=Room)

    async def statistics(self) -> ModelStatistics:
        """Returns the statistics of all replicas."""
        return await self.totals() if self.totals else self.backend.statistics()

    @property
    def decoupled(self) -> bool:
        return self.generator is not None

    @property
    def batched(self) -> bool:
        """Returns whether all inputs have a batch dimension."""
        return all(tensor.batched for tensor in self.inputs)

    @property
    def stateful(self) -> bool:
        return self.sequencer is not None
