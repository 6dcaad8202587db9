"""The table of errors: the status, the text and the time to retry that a client receives for each.

| error | HTTP | gRPC |
|---|---|---|
| BadMessage, BadTensor, InvalidInput, Rejected(TOO_LARGE) | 400 | INVALID_ARGUMENT |
| no credentials, or unknown ones | 401 | UNAUTHENTICATED |
| neither from the machine itself nor with the admin token | 403 | PERMISSION_DENIED |
| unknown model, version, path or region | 404 | NOT_FOUND |
| wrong verb | 405 with Allow | UNIMPLEMENTED |
| the request arrives too slowly | 408 with `Connection: close` | DEADLINE_EXCEEDED |
| another writer was faster, or a version still answers requests | 409 | ABORTED |
| TooLarge | 413 | RESOURCE_EXHAUSTED, gRPC's own answer to a message over its limit |
| UnsupportedEncoding | 415 | UNIMPLEMENTED |
| the head of the request is too large | 431 with `Connection: close` | RESOURCE_EXHAUSTED |
| a caller's own limit is reached | 429 with Retry-After | RESOURCE_EXHAUSTED with grpc-retry-pushback-ms |
| Cancelled | 499 | CANCELLED |
| ModelError, BadOutput, a bug of the server | 500 | INTERNAL |
| NotOneAnswer, an operation of the protocol that this server does not offer | 501 | UNIMPLEMENTED |
| LaneLost, BatchTimeout, not ready | 503 | UNAVAILABLE |
| Rejected, FeaturesUnavailable | 503 with Retry-After | UNAVAILABLE with grpc-retry-pushback-ms |
| Expired | 504 | DEADLINE_EXCEEDED |
| Rejected, since the call's own deadline would pass | 503 with Retry-After | DEADLINE_EXCEEDED |
| OutOfMemory | 507 | RESOURCE_EXHAUSTED |

OutOfMemory is not 503, since a retry would fail in the same way, on this replica and on any other.
"""

from dataclasses import dataclass

import orjson

from serving.core.errors import (
    FeaturesUnavailable,
    InvalidInput,
    LaneLost,
    ModelError,
    NotOneAnswer,
    OutOfMemory,
    ServingError,
)
from serving.core.outcome import Cancelled, Expired, Failed, Outcome, Reason, Rejected
from serving.core.request import RETURN_PART
from serving.protocol.errors import BadMessage, BadOutput, TooLarge, UnknownRegion, UnsupportedEncoding

Headers = tuple[tuple[bytes, bytes], ...]
_SECOND_NS = 1_000_000_000
# The first class that matches counts, so subclasses come before their base classes.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413),
    (UnsupportedEncoding, 415),
    (UnknownRegion, 404),
    (BadMessage, 400),
    (BadOutput, 500),
    (NotOneAnswer, 501),
    (InvalidInput, 400),
    (OutOfMemory, 507),
    (LaneLost, 503),
    (FeaturesUnavailable, 503),
    (ModelError, 500),
    (ServingError, 500),
)


# The numbers of gRPC's status codes, which are part of its protocol. First the statuses that google/rpc/code.proto
# maps, then those for which gRPC has no code of their own.
_GRPC_CODE = {400: 3, 401: 16, 403: 7, 404: 5, 429: 8, 499: 1, 500: 13, 501: 12, 503: 14, 504: 4}
_GRPC_CODE |= {405: 12, 408: 4, 409: 10, 413: 8, 415: 12, 431: 8, 507: 8}


@dataclass(frozen=True, slots=True)
class Fault:
    """An error as the client receives it.

    retry_after_ns: when a retry is worthwhile, in ns from now; None if unknown. Over HTTP it is sent in `headers`, in
        whole seconds.
    """

    status: int
    text: str
    headers: Headers = ()
    retry_after_ns: int | None = None

    @property
    def grpc_code(self) -> int:
        return _GRPC_CODE[self.status]

    @property
    def grpc_trailers(self) -> Headers:
        """The gRPC headers among `headers`, and `grpc-retry-pushback-ms`, which gRPC's retry policies obey."""
        own = tuple(header for header in self.headers if header[0].startswith(b"grpc-"))
        if self.retry_after_ns is None:
            return own
        return (*own, (b"grpc-retry-pushback-ms", b"%d" % max(1, self.retry_after_ns // 1_000_000)))

    @property
    def body(self) -> bytes:
        # The text may quote bytes of the client that are not valid Unicode.
        return orjson.dumps({"error": self.text.encode(errors="replace").decode()})


class CallFailed(Exception):
    """Ends a call with this fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.text)


INTERNAL = Fault(500, "internal error")


def fault_of_error(error: BaseException) -> Fault:
    """Returns the fault of a raised error.

    An error of an unknown class is a bug of the server: its text is not sent."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return Fault(status, str(error) or type(error).__name__)
    return INTERNAL


def fault_of_grpc(code: int, text: str) -> Fault:
    """Returns the fault for a gRPC code and text that another process of this server has answered."""
    status = next((status for status, known in _GRPC_CODE.items() if known == code), 500)
    return Fault(status, text)


def _is_beyond(needs_ns: int | None, limit_ns: int) -> bool:
    """Returns whether an answer that takes `needs_ns` is too late for its client, return time included.

    needs_ns: None if unknown; then it is too late, since the deadline is why the request was rejected."""
    return needs_ns is None or needs_ns > limit_ns - limit_ns // RETURN_PART


DEADLINE_PASSED = Fault(504, "the deadline of this call has passed")


def fault_of_outcome(outcome: Outcome, limit_ns: int | None = None) -> Fault:
    """Returns the fault of an outcome other than Completed.

    limit_ns: over gRPC, the time from the request's arrival to the deadline of its call. A rejection because that
        deadline cannot be met becomes DEADLINE_EXCEEDED: UNAVAILABLE would make retry policies repeat the call in vain.
    """
    match outcome:
        case Rejected(Reason.DEADLINE_HOPELESS) if limit_ns and _is_beyond(outcome.needs_ns, limit_ns):
            return Fault(504, f"request refused: {Reason.DEADLINE_HOPELESS.value}")
        case Failed(FeaturesUnavailable() as error):
            return Fault(503, str(error), (retry_after(_SECOND_NS),), _SECOND_NS)
        case Failed(error):
            return fault_of_error(error)
        case Rejected(Reason.TOO_LARGE, limit=limit):
            return Fault(400, f"request refused: {Reason.TOO_LARGE.value}, {limit}")
        case Rejected(reason, retry_after_ns):
            return Fault(503, f"request refused: {reason.value}", (retry_after(retry_after_ns),), retry_after_ns)
        case Expired(waited_ns):
            return Fault(504, f"the deadline passed after {waited_ns / 1e6:.1f} ms in the queue; nothing was computed")
        case Cancelled():
            return Fault(499, "request cancelled")
    return INTERNAL


def retry_after(ns: int) -> tuple[bytes, bytes]:
    """Returns the header Retry-After: whole seconds, and at least one, so that clients do not retry at once."""
    return (b"retry-after", b"%d" % max(1, -(-ns // _SECOND_NS)))


def unknown_model(name: str, version: str = "") -> Fault:
    """Returns the fault with Triton's text, which some clients look for."""
    of_version = f" version {version}" if version else ""
    return Fault(404, f"Request for unknown model: '{name}'{of_version} is not found")


def unavailable_model(name: str) -> Fault:
    """Returns the fault for a model that was unloaded."""
    return Fault(404, f"Request for unknown model: '{name}' has no available versions")


def escaped_path(raw: str, path: str) -> Fault:
    """Returns the fault for a path that names a known model with percent escapes, which load balancers do not decode.

    raw: the path as it was received. path: the same path decoded.
    """
    return Fault(404, f"Request for unknown model: '{raw[:200]}' is not decoded; use the path {path[:200]}")


def unknown_path(path: str) -> Fault:
    return Fault(404, f"no such path: {path[:200]}")


def wrong_verb(method: str, allowed: str) -> Fault:
    return Fault(405, f"{method[:20]} is not allowed here, use {allowed}", ((b"allow", allowed.encode()),))


def not_ready(name: str, state: str = "not ready") -> Fault:
    """Returns the fault for a model that cannot be called now.

    state: as in the repository index. A model that is ready there was not reachable: it is just starting or stopping.
    """
    state = "not reachable" if state.lower() == "ready" else state.lower()
    return Fault(503, f"Model '{name}' is {state}", (retry_after(_SECOND_NS),))


def left_out(text: str) -> Fault:
    return Fault(501, text)
