"""What a protocol needs of whatever answers requests: the local engine, or a fake of it."""

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

from serving.core.outcome import Outcome
from serving.core.statistics import ModelStatistics


class Submitted(Protocol):
    """The caller's hold on a request. Use one of two: await it, or leave a callback with `then`."""

    def __await__(self) -> Generator[Any, None, Outcome]:
        """The outcome. Cancelling the task that awaits withdraws the request."""
        ...

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Calls `callback` once with the outcome, on the event loop: at once if the request has ended already."""
        ...

    def cancel(self) -> None:
        """Withdraws the request, unless it has ended already; it ends as Cancelled."""
        ...


class Answers(Protocol):
    """The answers to one request of a model that generates: iterate over them, then `outcome` says how it ended
    (Completed without a value, if all went well)."""

    outcome: Outcome | None

    def __aiter__(self) -> AsyncIterator[object]: ...

    async def __anext__(self) -> object: ...

    def cancel(self) -> None:
        """Withdraws the request, also while it generates; what it has given stays readable."""
        ...


class Generating(Protocol):
    """What answers requests with any number of answers each."""

    def generate(
        self,
        payload: object,
        *,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Answers:
        """Hands over one request, as `Backend.submit`. timeout_ns: for waiting; what has begun goes on."""
        ...


class SequencePlace(NamedTuple):
    """Which sequence a request belongs to, and whether it is the first or the last of it."""

    id: int | str
    starts: bool
    ends: bool


class Sequencing(Protocol):
    """What answers requests that build on the ones before them."""

    def submit_in(
        self,
        place: SequencePlace,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Submitted:
        """As `Backend.submit`; answered after the requests of its sequence that were handed over before."""
        ...


class Backend(Protocol):
    def submit(
        self,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        parameters: Mapping[str, object] | None = None,
    ) -> Submitted:
        """Hands over one request; must be called on the event loop. Never raises for what a client did.

        payload: what the model takes: `dict[str, numpy.ndarray]`, every array `[rows, ...]`.
        rows: the leading dimension, at least 1.
        priority: 0 is the model's default, 1 the most urgent, larger numbers less so (Triton's order).
        timeout_ns: the client's own limit; beyond it an answer is worth nothing.
        age_ns: how long it has been under way, as far as is known; limits count from then.
        parameters: what else the client said, given only for models that take parameters; here and below.
        """
        ...

    def statistics(self) -> ModelStatistics: ...

    def is_ready(self) -> bool:
        """Can take requests now: warmed up, lanes alive, not draining."""
        ...
