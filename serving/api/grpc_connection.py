"""gRPC's fast door: HTTP/2 read and written here, so that a plain infer request costs no task and no gRPC runtime.

It answers what `grpc.py` answers, by the same service. Behind HAProxy, which puts it there, all clients share a few
connections; what arrives in one read is submitted together, and what is answered together leaves in one write. The
measurements that led here: docs/decisions/0006-grpc-without-grpc.md.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any
from urllib.parse import quote

from serving.api.age import HERE
from serving.api.exchange import new_id
from serving.api.faults import CallFailed, Fault
from serving.api.grpc_pending import REQUEST_ID, Pending, fault
from serving.api.grpc_service import INFER, STREAM, WATCH, GrpcService
from serving.api.grpc_tells import NotHere
from serving.api.http2_connection import CREDIT_STEP, LAST, MAX_HEADER_BYTES, Http2Connection, Stream
from serving.core.outcome import Outcome
from serving.protocol import http2
from serving.protocol.compression import coding_of, inflate
from serving.protocol.errors import BadMessage, TooLarge

MAX_TEXT = 1000
MAX_UNSENT = 1 << 20  # bytes of a stream that wait for a slow client; then whoever makes more waits too
_UNQUOTED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_UNIT_NS = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}
_PREFIX = Struct(">BI")  # of a message: is it compressed, how many bytes
_STATUS_200 = b"\x88"  # entry 8 of HPACK's table
_ANSWER = _STATUS_200 + http2.header_block([(b"content-type", b"application/grpc")])
_DONE = http2.header_block([(b"grpc-status", b"0")])
_NAME = b"\0" + http2.string(REQUEST_ID.encode())
# An answer of one message up to that message: a frame of headers, and the beginning of a frame of data.
_OPENING = Struct(f">HBBBI{len(_ANSWER)}sHBBBIBI")

Unary = Callable[[bytes], Awaitable[bytes]]


class Head:
    """What the headers of a call say; see `grpc_service.Call`."""

    __slots__ = ("_metadata", "coding", "is_grpc", "path", "problem", "timeout_ns")

    def __init__(self, headers: http2.Headers) -> None:
        self._metadata = dict(reversed(headers))  # the first of a name counts
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
        # Read when the call arrived, and asked for then.
        return self.timeout_ns

    def metadata(self, name: str) -> str:
        return self._metadata.get(name, "")

    def request_id(self) -> str:
        # Of a call: other calls with the same headers have the same head, and need a name of their own.
        return self._metadata.get(REQUEST_ID) or new_id().decode()


def _timeout_ns(value: str) -> int | None:
    if not value:
        return None
    digits, unit = value[:-1], _UNIT_NS.get(value[-1])
    if unit is None or not digits.isdecimal() or len(digits) > 8:
        raise BadMessage(f"{value[:20]!r} is no time", path="grpc-timeout")
    return max(1, int(digits) * unit)


class Call(Stream[Head]):
    """One call, and what has come of it."""

    __slots__ = ("age_ns", "answering", "drained", "has_headers", "inbox", "received", "uncredited")

    def __init__(self, id: int, head: Head, window: int, age_ns: int) -> None:
        super().__init__(id, head, window)
        self.age_ns = age_ns  # when its head was read
        self.received = bytearray()  # of a message that is not complete
        # Where messages go, each with its size on the wire, for calls that take several; None ends them.
        self.inbox: asyncio.Queue[tuple[bytes, int] | None] | None = None
        self.answering: Any = None  # what to cancel when the client leaves: a submitted request, or a task
        self.has_headers = False
        self.drained: asyncio.Event | None = None  # where somebody waits for the client to read
        self.uncredited = 0  # taken, and not yet told to the client


class GrpcConnection(Http2Connection[Head]):
    """A client's connection. others: further unary calls by path, beside the service's. heads: what is known of header
    blocks, shared by all."""

    def __init__(
        self,
        service: GrpcService,
        *,
        max_message_bytes: int,
        others: Mapping[str, Unary],
        connections: "set[Http2Connection[Head]]",
        heads: dict[bytes, Head],
    ) -> None:
        reader = http2.HeaderReader(Head, heads, MAX_HEADER_BYTES)
        # Room for the largest message even while credit for the one before has not been given back yet.
        super().__init__(reader, max_message_bytes + _PREFIX.size + CREDIT_STEP, connections)
        self._service = service
        self._max_message_bytes = max_message_bytes
        self._others = others
        self._age_ns = 0  # of the head that was read last

    # -- what comes -------------------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> Head:
        block, self._age_ns = HERE.split_block(block)
        return super()._read_head(block)

    def _begin(self, id: int, head: Head) -> None:
        call = self._streams[id] = Call(id, head, self._stream_window, self._age_ns)
        if head.problem is not None:
            self._fail(call, head.problem)
        elif not head.is_grpc:
            self._fail(call, Fault(415, "not a gRPC call: POST and content-type application/grpc"))
        elif head.path == STREAM:
            call.inbox = asyncio.Queue()
            call.answering = self._loop.create_task(self._converse(call))
        elif not (head.path in (INFER, WATCH) or head.path in self._service.tells or head.path in self._others):
            self._fail(call, Fault(501, f"no such call: {head.path[:200]}"))

    def _take_bytes(self, stream: Call, payload: bytes, *, is_last: bool) -> None:
        received: bytes | bytearray = payload
        if stream.received:
            stream.received += payload
            received = stream.received
        offset, end = 0, len(received)
        while end - offset >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(received, offset)
            if size > self._max_message_bytes:
                limit = f"the message is larger than {self._max_message_bytes} bytes, the limit of this server"
                self._fail(stream, fault(TooLarge(limit), "a message"))
                return
            start = offset + _PREFIX.size
            if start + size > end:
                break
            offset = start + size
            stream.is_over = is_last and offset == end
            self._take_message(stream, bytes(received[start:offset]), compressed)
            if stream.id not in self._streams:
                return
        if received is stream.received:
            del stream.received[:offset]
        elif offset < end:
            stream.received += payload[offset:]
        if is_last:
            self._end_of_bytes(stream)

    def _take_message(self, call: Call, message: bytes, compressed: int) -> None:
        wire_bytes = _PREFIX.size + len(message)
        try:
            if compressed:
                message = inflate(message, coding_of(call.head.coding), self._max_message_bytes)
        except Exception as error:
            self._fail(call, fault(error, "a compressed message"))
            return
        if call.inbox is not None:
            call.inbox.put_nowait((message, wire_bytes))
        elif call.answering is None:
            self._answer(call, message)

    def _end_of_bytes(self, stream: Call) -> None:
        stream.is_over = True
        if stream.received:
            self._fail(stream, Fault(400, "the call ends in the middle of a message"))
        elif stream.inbox is not None:
            stream.inbox.put_nowait(None)
        elif stream.answering is None:
            self._fail(stream, Fault(400, "the call has no message"))

    def _withdraw(self, stream: Call) -> None:
        if stream.answering is not None:
            stream.answering.cancel()

    # -- calls ------------------------------------------------------------------------------------------------

    def _answer(self, call: Call, message: bytes) -> None:
        if call.head.path != INFER or self._service.takes_long(message):
            call.answering = self._loop.create_task(self._tell(call, message))
            return
        try:
            pending = self._service.submit(message, call.head, call.age_ns)
        except NotHere:
            call.answering = self._loop.create_task(self._tell(call, message))
        except Exception as error:
            self._fail(call, fault(error, "a model"))
        else:
            call.answering = pending.submitted
            pending.submitted.then(partial(self._infer_is_over, call, pending))

    def _infer_is_over(self, call: Call, pending: Pending, outcome: Outcome) -> None:
        if pending.takes_long(outcome):
            call.answering = self._loop.create_task(self._answer_beside(call, pending, outcome))
            return
        named = _NAME + http2.string(pending.request_id.encode("latin-1"))
        try:
            response = pending.answer(outcome)
        except CallFailed as failed:
            self._fail(call, failed.fault, named)
            return
        if self._streams.get(call.id) is not call:
            return  # the client has left
        size = len(response) + _PREFIX.size
        if not call.is_over or size > self._max_frame or size > call.window or size > self._window or call.sending:
            self._send_message(call, response)
            self._end(call, _DONE + named)
            return
        self._window -= size
        del self._streams[call.id]
        headers = (0, len(_ANSWER), http2.HEADERS, http2.END_HEADERS, call.id, _ANSWER)
        opening = _OPENING.pack(*headers, size >> 8, size & 0xFF, http2.DATA, 0, call.id, 0, size - _PREFIX.size)
        trailers = http2.frame_head(http2.HEADERS, LAST, call.id, len(_DONE) + len(named))
        self._send(b"".join((opening, response, trailers, _DONE, named)))

    async def _answer_beside(self, call: Call, pending: Pending, outcome: Outcome) -> None:
        named = _NAME + http2.string(pending.request_id.encode("latin-1"))
        try:
            self._send_message(call, await pending.answer_beside(outcome))
            self._end(call, _DONE + named)
        except CallFailed as failed:
            self._fail(call, failed.fault, named)

    async def _tell(self, call: Call, message: bytes) -> None:
        path = call.head.path
        try:
            if path == WATCH:
                await self._service.watch_health(message, partial(self._stream_message, call))
            if path == INFER:
                response = await self._service.infer(message, call.head, call.age_ns)
            elif path in self._others:
                response = await self._others[path](message)
            else:
                response = await self._service.tell(path, message, call.head)
            self._send_message(call, response)
            self._end(call, _DONE)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, path))

    async def _converse(self, call: Call) -> None:
        try:
            await self._service.stream(self._messages(call), partial(self._stream_message, call), call.head)
            self._send_headers(call)
            self._end(call, _DONE)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, "a stream"))

    async def _messages(self, call: Call) -> AsyncIterator[bytes]:
        assert call.inbox is not None
        while (item := await call.inbox.get()) is not None:
            message, wire_bytes = item
            yield message
            # Only what was taken makes room: whoever sends faster than we answer has to wait.
            call.uncredited += wire_bytes
            if call.uncredited >= CREDIT_STEP and call.id in self._streams:
                self._send(http2.window_update(call.id, call.uncredited))
                call.uncredited = 0

    # -- what goes -------------------------------------------------------------------------------------------

    async def _stream_message(self, call: Call, message: bytes) -> None:
        self._send_message(call, message)
        if len(call.sending) > MAX_UNSENT and self._streams.get(call.id) is call:
            call.drained = call.drained or asyncio.Event()
            await call.drained.wait()

    def _push(self, stream: Call) -> None:
        super()._push(stream)
        if stream.drained is not None and not stream.sending:
            stream.drained.set()
            stream.drained = None

    def _send_headers(self, call: Call) -> None:
        if not call.has_headers:
            call.has_headers = True
            self._send(http2.frame(http2.HEADERS, http2.END_HEADERS, call.id, _ANSWER))

    def _send_message(self, call: Call, message: bytes) -> None:
        if self._streams.get(call.id) is call:
            self._send_headers(call)
            self._queue(call, _PREFIX.pack(0, len(message)) + message)

    def _end(self, call: Call, trailers: bytes) -> None:
        """Ends the call when all its messages are out."""
        if self._streams.get(call.id) is call:
            self._send_headers(call)
            call.trailers = trailers
            self._push(call)

    def _fail(self, call: Call, fault: Fault, more: bytes = b"") -> None:
        """Ends the call with an error; messages that have not left yet are lost with it. more: further trailers."""
        if self._streams.get(call.id) is not call:
            return
        if call.answering is not None and call.answering is not asyncio.current_task():
            call.answering.cancel()
        text = quote(fault.text[:MAX_TEXT], safe=_UNQUOTED, errors="replace").encode()
        trailers = [(b"grpc-status", b"%d" % fault.grpc_code), (b"grpc-message", text)]
        if fault.retry_after_ns is not None:
            trailers.append((b"grpc-retry-pushback-ms", b"%d" % max(1, fault.retry_after_ns // 1_000_000)))
        block = http2.header_block(trailers) + more
        self._finish(call, block if call.has_headers else _ANSWER + block)


class GrpcListener:
    """Takes connections on a port of its own."""

    def __init__(
        self, service: GrpcService, *, max_message_bytes: int, others: Mapping[str, Unary] | None = None
    ) -> None:
        self._connections: set[Http2Connection[Head]] = set()
        self._make = partial(
            GrpcConnection,
            service,
            max_message_bytes=max_message_bytes,
            others=others or {},
            connections=self._connections,
            heads={},
        )

    async def open(self, host: str | None, port: int) -> int:
        """Returns the port. Raises OSError where it is taken."""
        self._server = await asyncio.get_running_loop().create_server(self._make, host, port)
        taken: int = self._server.sockets[0].getsockname()[1]
        return taken

    async def close(self) -> None:
        """Takes nothing new; calls that run are still answered."""
        self._server.close()
        for connection in list(self._connections):
            connection.leave()
