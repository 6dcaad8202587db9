"""Who is told of a request when its answer leaves: what the engine's observer cannot know, the wire and the client."""

from typing import NamedTuple, Protocol

from serving.core.outcome import Outcome


class Exchange(NamedTuple):
    """One request and its answer, as their wire saw them. No payload is in here.

    wire: "http" or "grpc". id: the client's name for the request, or one that was made up for it.
    status: what HTTP would call it, whatever the wire.
    outcome: None where the message could not be read, so that there was no request.
    traceparent: the header of that name (W3C Trace Context), "" without one.
    began_ns, settled_ns, ended_ns: when the message was there, when its outcome was, and when the answer was written.
    """

    wire: str
    id: str
    tenant: str
    status: int
    outcome: Outcome | None
    traceparent: str
    began_ns: int
    settled_ns: int
    ended_ns: int


class Witness(Protocol):
    def answered(self, exchange: Exchange) -> None:
        """Called on the event loop for every request: it must decide in a microsecond whether it cares."""
