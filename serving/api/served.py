"""The central value of both wires: a model with everything that a request to it may touch."""

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
    """A model as the wire sees it. `config` gives our settings, shown under `parameters` of the model's config.
    `generator`: of a model that gives any number of answers to a request; `sequencer`: of one with state. Their
    `backend` refuses requests that come without what they need.
    `takes_parameters`: the backend is to be given the request's own parameters.
    `witnesses` are told of every request, `of_failures` of those that end with a status from 500.
    `regions`: the shared memory that requests may refer to; None where they may not. `totals`: the statistics of
    all its replicas, where there are others than this one. `trace`: reads and changes what is traced of it, see
    `operations.Switches`. `wire`: what its messages took, counted here. `room`: for the bodies of its requests."""

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
        """Of all replicas."""
        return await self.totals() if self.totals else self.backend.statistics()

    @property
    def decoupled(self) -> bool:
        return self.generator is not None

    @property
    def batched(self) -> bool:
        """Tensors have a dimension of rows."""
        return all(tensor.batched for tensor in self.inputs)

    @property
    def stateful(self) -> bool:
        return self.sequencer is not None
