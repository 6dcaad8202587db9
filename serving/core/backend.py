"""The interfaces between a protocol (HTTP or gRPC) and the engine that answers its requests, or a fake engine."""

from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

from serving.core.outcome import Outcome
from serving.core.statistics import ModelStatistics


class Submitted(Protocol):
    """The caller's handle on a submitted request. Await it or register a callback with `then`, not both."""

    def __await__(self) -> Generator[Any, None, Outcome]:
        """Returns the outcome. Cancelling the task that awaits withdraws the request."""
        ...

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Calls `callback` once with the outcome, on the event loop; immediately if the request has already ended."""
        ...

    def cancel(self) -> None:
        """Withdraws the request unless it has already ended. It then ends as Cancelled."""
        ...


class Answers(Protocol):
    """The answers to one request of a generating model. Iterate over them; afterwards `outcome` is how the request
    ended (Completed without a value if it succeeded)."""

    outcome: Outcome | None

    def __aiter__(self) -> AsyncIterator[object]: ...

    async def __anext__(self) -> object: ...

    def cancel(self) -> None:
        """Withdraws the request, even while it generates. Answers produced so far stay readable."""
        ...


class Generating(Protocol):
    """An engine that gives any number of answers to each request."""

    def generate(
        self,
        payload: object,
        *,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Answers:
        """Submits one request; the arguments are those of `Backend.submit`.

        timeout_ns: limits only the time in the queue; a generation that has begun is not interrupted.
        """
        ...


class SequencePlace(NamedTuple):
    """The sequence that a request belongs to, and whether the request is its first or its last."""

    id: int | str
    starts: bool
    ends: bool


class Sequencing(Protocol):
    """An engine whose requests depend on the earlier requests of the same sequence."""

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
        """Submits one request of a sequence; the other arguments are those of `Backend.submit`.

        It is answered after all requests of its sequence that were submitted before it.
        """
        ...


class Backend(Protocol):
    """An engine that answers each request once."""

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
        """Submits one request. Call it on the event loop. A client's mistake never makes it raise.

        payload: the model's input, `dict[str, numpy.ndarray]`, each array of shape `[rows, ...]`.
        rows: the leading dimension, at least 1.
        priority: 0 is the model's default, 1 the most urgent, larger numbers are less urgent (Triton's order).
        timeout_ns: the client's own time limit; an answer after it is useless.
        age_ns: how long ago the request arrived at the server, as far as known; time limits count from its arrival.
        parameters: the request's parameters, passed only to models that take parameters. The same holds for the
            other interfaces of this module.
        """
        ...

    def statistics(self) -> ModelStatistics: ...

    def is_ready(self) -> bool:
        """Returns whether it accepts requests now: it is warmed up, has live lanes and is not draining."""
        ...
