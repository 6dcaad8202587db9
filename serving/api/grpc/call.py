"""The state of one gRPC call on the fast door: its decoded headers, and the progress of its answer."""

import asyncio
from typing import Any

from serving.api.admission.gate import Peer
from serving.api.admission.room import Held
from serving.api.exchange import new_id, now_ns
from serving.api.faults import Fault
from serving.api.grpc.pending import REQUEST_ID, fault
from serving.api.http2.sending import Stream
from serving.protocol import http2
from serving.protocol.errors import BadMessage
from serving.protocol.http2_heads import malformed

_UNIT_NS = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}


class Head:
    """The decoded headers of a call; implements `pending.Call`. Calls with equal header blocks share one object."""

    __slots__ = (
        "_metadata",
        "coding",
        "content_length",
        "is_grpc",
        "malformed",
        "path",
        "peer",
        "problem",
        "timeout_ns",
    )

    def __init__(self, headers: http2.Headers) -> None:
        self._metadata = dict(reversed(headers))  # reversed, so that the first value of a name counts
        self.peer = Peer(self.metadata, "", {})
        self.malformed = malformed(headers)
        length = self._metadata.get("content-length", "")
        self.content_length = int(length) if length and not self.malformed else None
        self.path = self._metadata.get(":path", "")
        kind = self._metadata.get("content-type", "")
        self.is_grpc = self._metadata.get(":method") == "POST" and kind.startswith("application/grpc")
        self.coding = self._metadata.get("grpc-encoding", "identity")
        self.timeout_ns: int | None = None
        self.problem: Fault | None = None
        try:
            self.timeout_ns = _timeout_ns(self._metadata.get("grpc-timeout", ""))
        except BadMessage as error:
            self.problem = fault(error, "headers")

    def time_left_ns(self) -> int | None:
        # Headers have no clock: this is exact only while the call has just arrived, and is called only then.
        return self.timeout_ns

    def metadata(self, name: str) -> str:
        return self._metadata.get(name, "")

    def request_id(self) -> str:
        # Not cached here: other calls share this head, and each needs an id of its own.
        return self._metadata.get(REQUEST_ID) or new_id().decode()


def _timeout_ns(value: str) -> int | None:
    if not value:
        return None
    digits, unit = value[:-1], _UNIT_NS.get(value[-1])
    if unit is None or not digits.isdecimal() or len(digits) > 8:
        text = f"{value[:20]!r} is not a timeout: send 1 to 8 digits and one of the units H, M, S, m, u, n"
        raise BadMessage(text, path="grpc-timeout")
    return max(1, int(digits) * unit)


class Call(Stream[Head]):
    """One call and its progress. Implements `pending.Call`; after `start_clock` its time left decreases."""

    received: bytearray | None = None  # bytes of messages that are incomplete or not taken yet
    more: asyncio.Event | None = None  # set when bytes arrive or the client's side ends; only calls of many messages
    answering: Any = None  # cancelled when the call ends early: a submitted request, or a task
    has_headers = False  # the response headers were sent
    drained: asyncio.Event | None = None  # set when all queued data were sent; a task waits for it
    timer: asyncio.TimerHandle | None = None  # fails the call when its deadline passes
    arriving: Held | None = None  # counts the call among its tenant's while its message is incomplete
    _ends_ns: int | None = None
    _request_id = ""

    def __init__(self, id: int, head: Head, window: int, room: int, age_ns: int) -> None:
        super().__init__(id, head, window, room)
        self.age_ns = age_ns  # of the call when its headers were read

    def start_clock(self) -> None:
        """Starts the clock of the deadline. The client started its own when it sent the call, `age_ns` ago."""
        if self.head.timeout_ns is not None:
            self._ends_ns = now_ns() - self.age_ns + self.head.timeout_ns

    def time_left_ns(self) -> int | None:
        return self.head.timeout_ns if self._ends_ns is None else max(1, self._ends_ns - now_ns())

    @property
    def peer(self) -> Peer:
        return self.head.peer

    def metadata(self, name: str) -> str:
        return self.head.metadata(name)

    def request_id(self) -> str:
        self._request_id = self._request_id or self.head.request_id()
        return self._request_id
