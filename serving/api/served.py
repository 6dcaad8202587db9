"""The central value of both wires: a model with everything that its requests use."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.api.admission.bound import NO_BOUND, Bound
from serving.api.admission.quota import Quota
from serving.api.admission.room import Room
from serving.api.feedback import FeedbackBox
from serving.api.shared_memory.regions import Regions
from serving.core.backend import Backend, Generating, Sequencing
from serving.core.statistics import ModelStatistics, WireTimes
from serving.core.witness import Witness
from serving.protocol.messages import TensorDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model as both wires see it.

    backend: computes the requests. The backend of a model with a generator or a sequencer rejects requests that must go
        through that instead.
    generator: of a generating model, which sends any number of answers to a request; otherwise None.
    sequencer: of a model with state; otherwise None.
    example: the JSON of an example request, shown on the pages; None without one.
    config: returns the model's settings, shown under `parameters` of its configuration.
    takes_parameters: whether the backend receives the request's own parameters.
    tells_features: whether the backend can tell which features were not known.
    witnesses: are notified of every request. A list may change while requests are served.
    of_failures: is notified of requests that end with a status of 500 or more.
    regions: the shared memory to which requests may refer; None if they may not.
    totals: returns the statistics of all replicas; None if this is the only one.
    trace: reads and changes the trace settings of this model, see `operations.Switches`.
    clear_cache: removes cached answers, all or those of the `tenant` that is named; None for a model without a cache.
    wire: the time spent on reading requests and writing answers, measured here.
    room: bounds the bytes of its requests' bodies.
    bound: tells HAProxy how many requests may be in flight.
    quota: bounds what each tenant may ask; None if nothing does.
    feedback: takes the values that clients send back for answers.
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
    tells_features: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    witnesses: Sequence[Witness] = ()
    of_failures: Witness | None = None
    regions: Regions | None = None
    totals: Callable[[], Awaitable[ModelStatistics]] | None = None
    trace: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]] | None = None
    clear_cache: Callable[[Mapping[str, Any]], Awaitable[dict[str, int]]] | None = None
    wire: WireTimes = field(default_factory=WireTimes)
    room: Room = field(default_factory=Room)
    bound: Bound = NO_BOUND
    quota: Quota | None = None
    feedback: FeedbackBox = field(default_factory=FeedbackBox)

    async def statistics(self) -> ModelStatistics:
        """Returns the statistics, summed over all replicas."""
        return await self.totals() if self.totals else self.backend.statistics()

    @property
    def decoupled(self) -> bool:
        return self.generator is not None

    @property
    def batched(self) -> bool:
        """True if the first dimension of all inputs is the batch dimension, so that requests can share a batch."""
        return all(tensor.batched for tensor in self.inputs)

    @property
    def stateful(self) -> bool:
        return self.sequencer is not None
