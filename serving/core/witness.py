"""The interface by which a protocol notifies logs and traces of each answered request.

It has the facts that the engine's observer lacks: the protocol, the client's request id and the time of the answer.
"""

from typing import NamedTuple, Protocol

from serving.core.outcome import Outcome


class Exchange(NamedTuple):
    """One request and its answer, as seen by their protocol, without payloads.

    wire: "http" or "grpc". id: the client's id of the request, or a generated one.
    status: the HTTP status; for gRPC, the equivalent one.
    outcome: None if the message could not be decoded, so that no request was submitted.
    traceparent: the header of that name (W3C Trace Context), "" without one.
    began_ns, settled_ns, ended_ns: when the message was complete, when the outcome was final, and when the answer was
        written.
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
    """An observer of answered requests."""

    def answered(self, exchange: Exchange) -> None:
        """Called on the event loop for each request, so ignoring one must take no more than about a microsecond."""
