"""The one table from what went wrong to what a client is told: status, text, when to come back.

| fact | status |
|---|---|
| BadMessage, BadTensor, InvalidInput, Rejected(TOO_LARGE) | 400 |
| unknown model, version or path | 404 |
| wrong verb | 405 with Allow |
| TooLarge | 413 |
| UnsupportedEncoding | 415 |
| Cancelled | 499 |
| ModelError, BadOutput, a bug of ours | 500 |
| an operation of the protocol that this server leaves out | 501 |
| Rejected, LaneLost, BatchTimeout, not ready | 503, Rejected with Retry-After |
| Expired | 504 |
| OutOfMemory | 507: trying again elsewhere helps as little as here, so it must not look like 503 |
"""

from dataclasses import dataclass

import orjson

from serving.core.errors import InvalidInput, LaneLost, ModelError, OutOfMemory, ServingError
from serving.core.outcome import Cancelled, Expired, Failed, Outcome, Reason, Rejected
from serving.protocol.errors import BadMessage, BadOutput, TooLarge, UnsupportedEncoding

Headers = tuple[tuple[bytes, bytes], ...]
_SECOND_NS = 1_000_000_000
# The first class that matches counts, so the narrower ones come first.
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (TooLarge, 413),
    (UnsupportedEncoding, 415),
    (BadMessage, 400),
    (BadOutput, 500),
    (InvalidInput, 400),
    (OutOfMemory, 507),
    (LaneLost, 503),
    (ModelError, 500),
    (ServingError, 500),
)


@dataclass(frozen=True, slots=True)
class Fault:
    status: int
    text: str
    headers: Headers = ()

    @property
    def body(self) -> bytes:
        # A client's bytes may be quoted in the text; what is no valid text must not spoil the answer.
        return orjson.dumps({"error": self.text.encode(errors="replace").decode()})


INTERNAL = Fault(500, "internal error")


def fault_of_error(error: Exception) -> Fault:
    """What a raised error means to the client. Unknown kinds are our bugs, and their text stays with us."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return Fault(status, str(error) or type(error).__name__)
    return INTERNAL


def fault_of_outcome(outcome: Outcome) -> Fault:
    """What an outcome other than Completed means to the client."""
    match outcome:
        case Failed(error):
            return fault_of_error(error)
        case Rejected(Reason.TOO_LARGE):
            return Fault(400, f"request refused: {Reason.TOO_LARGE.value}")
        case Rejected(reason, retry_after_ns):
            return Fault(503, f"request refused: {reason.value}", (retry_after(retry_after_ns),))
        case Expired(waited_ns):
            return Fault(504, f"the deadline passed after {waited_ns / 1e6:.1f} ms in the queue; nothing was computed")
        case Cancelled():
            return Fault(499, "request cancelled")
    return INTERNAL


def retry_after(ns: int) -> tuple[bytes, bytes]:
    """HTTP knows whole seconds only; zero would invite a storm."""
    return (b"retry-after", b"%d" % max(1, -(-ns // _SECOND_NS)))


def unknown_model(name: str, version: str = "") -> Fault:
    """In Triton's words: clients look for them."""
    of_version = f" version {version}" if version else ""
    return Fault(404, f"Request for unknown model: '{name}'{of_version} is not found")


def unknown_path(path: str) -> Fault:
    return Fault(404, f"no such path: {path[:200]}")


def wrong_verb(method: str, allowed: str) -> Fault:
    return Fault(405, f"{method[:20]} is not possible here, use {allowed}", ((b"allow", allowed.encode()),))


def not_ready(name: str, state: str = "not ready") -> Fault:
    return Fault(503, f"Model '{name}' is {state}", (retry_after(_SECOND_NS),))


def left_out(what: str) -> Fault:
    return Fault(501, f"{what} is not supported by this server")
