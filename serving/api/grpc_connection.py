"""gRPC's fast door: HTTP/2 read and written here, so that a plain infer request costs no task and no gRPC runtime.

It answers what `grpc.py` answers, by the same service. Behind HAProxy, which puts it there, all clients share a few
connections; what arrives in one read is submitted together, and what is answered together leaves in one write. The
measurements that led here: docs/decisions/0006-grpc-without-grpc.md.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from struct import Struct
from typing import Any
from urllib.parse import quote

from serving.api.faults import CallFailed, Fault, fault_of_outcome
from serving.api.grpc_service import INFER, STREAM, WATCH, GrpcService, NotHere, Pending, fault
from serving.core.outcome import Completed, Outcome
from serving.protocol import http2
from serving.protocol.compression import coding_of, inflate
from serving.protocol.errors import BadMessage, TooLarge

_log = logging.getLogger(__name__)
MAX_STREAMS = 1024  # open at a time on one connection
MAX_HEADER_BYTES = 64 * 1024
MAX_FRAME_BYTES = 1 << 20
CREDIT_STEP = 1 << 20  # how much is consumed before the sender is told that there is room again
MAX_TEXT = 1000
_UNQUOTED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_UNIT_NS = {"n": 1, "u": 10**3, "m": 10**6, "S": 10**9, "M": 60 * 10**9, "H": 3600 * 10**9}
_PREFIX = Struct(">BI")  # of a message: is it compressed, how many bytes
_STATUS_200 = b"\x88"  # entry 8 of HPACK's table
_ANSWER = _STATUS_200 + http2.header_block([(b"content-type", b"application/grpc")])
_DONE = http2.header_block([(b"grpc-status", b"0")])
_LAST = http2.END_HEADERS | http2.END_STREAM

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


def _timeout_ns(value: str) -> int | None:
    if not value:
        return None
    digits, unit = value[:-1], _UNIT_NS.get(value[-1])
    if unit is None or not digits.isdigit() or len(digits) > 8:
        raise BadMessage(f"{value[:20]!r} is no time", path="grpc-timeout")
    return max(1, int(digits) * unit)


class Stream:
    """One call: what has come of it, and what of its answer could not be sent yet."""

    __slots__ = (
        "answering", "has_headers", "head", "id", "inbox", "is_over", "received", "sending", "trailers", "uncredited",
        "window",
    )  # fmt: skip

    def __init__(self, id: int, head: Head, window: int) -> None:
        self.id = id
        self.head = head
        self.window = window  # how many bytes the client is ready to take
        self.received = b""  # bytes of a message that is not complete
        self.inbox: asyncio.Queue[bytes | None] | None = None  # where messages go, for calls that take several
        self.answering: Any = None  # what to cancel when the client leaves: a submitted request, or a task
        self.sending = b""  # messages that wait for window
        self.trailers: bytes | None = None  # what ends the call when they are out
        self.has_headers = False
        self.is_over = False  # the client has said all it wants to say
        self.uncredited = 0


class GrpcConnection(asyncio.Protocol):
    """A client's connection. others: further unary calls by path, beside the service's. connections: all open ones.
    heads: what is known of header blocks, shared by all."""

    def __init__(
        self,
        service: GrpcService,
        *,
        max_message_bytes: int,
        others: Mapping[str, Unary],
        connections: "set[GrpcConnection]",
        heads: dict[bytes, Head],
    ) -> None:
        self._service = service
        self._max_message_bytes = max_message_bytes
        self._others = others
        self._connections = connections
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._reader = http2.HeaderReader(Head, heads, MAX_HEADER_BYTES)
        self._unread = b""
        self._has_preface = False
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and bytes of an unfinished header block
        self._consumed = 0
        self._window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._max_frame = http2.SMALLEST_MAX_FRAME
        self._out: list[bytes] = []
        self._is_leaving = False

    # -- the transport's events -------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._connections.add(self)
        window = min(http2.LARGEST_WINDOW, max(http2.DEFAULT_WINDOW, self._max_message_bytes + _PREFIX.size))
        self._send(
            http2.settings(
                [
                    (http2.HEADER_TABLE_SIZE, 0),
                    (http2.MAX_CONCURRENT_STREAMS, MAX_STREAMS),
                    (http2.INITIAL_WINDOW_SIZE, window),
                    (http2.MAX_FRAME_SIZE, MAX_FRAME_BYTES),
                ]
            )
            + http2.window_update(0, http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW)
        )

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        for stream in list(self._streams.values()):
            self._drop(stream)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        try:
            self._unread = data[self._read(data) :]
        except BadMessage as error:
            _log.debug("closing a connection: %s", error)
            self._send(http2.goaway(self._last_stream, http2.PROTOCOL_ERROR))
            self._flush()
            self._transport.close()

    def leave(self) -> None:
        """Takes no new calls, and closes when those that run are answered."""
        self._is_leaving = True
        self._send(http2.goaway(self._last_stream, http2.NO_ERROR))

    # -- frames in --------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> int:
        """How many bytes were understood. Raises BadMessage for what is no HTTP/2 of a client."""
        offset, end = 0, len(data)
        if not self._has_preface:
            if not http2.PREFACE.startswith(data[: len(http2.PREFACE)]):
                raise BadMessage("not HTTP/2")
            if end < len(http2.PREFACE):
                return 0
            self._has_preface = True
            offset = len(http2.PREFACE)
        while offset + http2.FRAME_BYTES <= end:
            size, kind, flags, id = http2.read_frame_head(data, offset)
            if size > MAX_FRAME_BYTES:
                raise BadMessage("the frame is too large")
            start = offset + http2.FRAME_BYTES
            if start + size > end:
                break
            offset = start + size
            self._take(kind, flags, id, data[start:offset])
        return offset

    def _take(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None and kind != http2.CONTINUATION:
            raise BadMessage("a header block was not continued")
        if kind == http2.DATA:
            self._take_data(flags, id, payload)
        elif kind == http2.HEADERS:
            self._block = (id, flags, http2.unpadded(payload, flags))
            self._end_block(flags)
        elif kind == http2.CONTINUATION:
            if self._block is None or self._block[0] != id:
                raise BadMessage("a continuation of nothing")
            self._block = (id, self._block[1], self._block[2] + payload)
            self._end_block(flags)
        elif kind == http2.WINDOW_UPDATE:
            self._widen(id, http2.number(payload))
        elif kind == http2.RST_STREAM:
            http2.number(payload)
            if (stream := self._streams.get(id)) is not None:
                self._drop(stream)
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            self._adopt(http2.read_settings(payload))
        elif kind == http2.PING and not flags & http2.ACK:
            self._send(http2.frame(http2.PING, http2.ACK, 0, payload[:8].ljust(8, b"\0")))
        elif kind == http2.PUSH_PROMISE:
            raise BadMessage("a client cannot promise")

    def _end_block(self, flags: int) -> None:
        assert self._block is not None
        id, first_flags, block = self._block
        if len(block) > MAX_HEADER_BYTES:
            raise BadMessage("the headers are too large")
        if not flags & http2.END_HEADERS:
            return
        self._block = None
        head = self._reader.read(block)
        if id in self._streams:  # trailers of a client: they can only end its part
            if first_flags & http2.END_STREAM:
                self._end_of_messages(self._streams[id])
            return
        if not id % 2 or id <= self._last_stream:
            # An answered call may still get its end; anything else was never begun.
            if id % 2 and id <= self._last_stream:
                return
            raise BadMessage("a client's streams are odd")
        self._last_stream = id
        if self._is_leaving or len(self._streams) >= MAX_STREAMS:
            self._send(http2.reset(id, http2.REFUSED_STREAM))
            return
        self._begin(id, head, first_flags & http2.END_STREAM)

    def _begin(self, id: int, head: Head, is_over: int) -> None:
        stream = self._streams[id] = Stream(id, head, self._stream_window)
        if head.problem is not None:
            self._fail(stream, head.problem)
        elif not head.is_grpc:
            self._fail(stream, Fault(415, "not a gRPC call: POST and content-type application/grpc"))
        elif head.path == STREAM:
            stream.inbox = asyncio.Queue()
            stream.answering = self._loop.create_task(self._converse(stream))
        elif not (head.path in (INFER, WATCH) or head.path in self._service.tells or head.path in self._others):
            self._fail(stream, Fault(501, f"no such call: {head.path[:200]}"))
        if is_over and id in self._streams:
            self._end_of_messages(stream)

    def _take_data(self, flags: int, id: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= CREDIT_STEP:
            self._send(http2.window_update(0, self._consumed))
            self._consumed = 0
        stream = self._streams.get(id)
        if stream is None:
            return  # of a call that has been answered, or withdrawn
        if flags & http2.PADDED:
            payload = http2.unpadded(payload, flags & http2.PADDED)
        received = stream.received + payload if stream.received else payload
        while len(received) >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(received)
            if size > self._max_message_bytes:
                limit = f"the message is larger than {self._max_message_bytes} bytes, the limit of this server"
                self._fail(stream, fault(TooLarge(limit), "a message"))
                return
            end = _PREFIX.size + size
            if len(received) < end:
                break
            message = received[_PREFIX.size : end]
            received = received[end:]
            try:
                if compressed:
                    message = inflate(message, coding_of(stream.head.coding), self._max_message_bytes)
            except Exception as error:
                self._fail(stream, fault(error, "a compressed message"))
                return
            if stream.inbox is not None:
                stream.inbox.put_nowait(message)
            elif stream.answering is None:
                stream.is_over = bool(flags & http2.END_STREAM)
                self._answer(stream, message)
                if id not in self._streams:
                    return
        stream.received = received
        if flags & http2.END_STREAM:
            self._end_of_messages(stream)

    def _end_of_messages(self, stream: Stream) -> None:
        stream.is_over = True
        if stream.received:
            self._fail(stream, Fault(400, "the call ends in the middle of a message"))
        elif stream.inbox is not None:
            stream.inbox.put_nowait(None)
        elif stream.answering is None:
            self._fail(stream, Fault(400, "the call has no message"))

    def _widen(self, id: int, credit: int) -> None:
        if id == 0:
            self._window += credit
            for stream in list(self._streams.values()):
                if stream.sending:
                    self._push(stream)
        elif (found := self._streams.get(id)) is not None:
            found.window += credit
            if found.sending:
                self._push(found)

    def _adopt(self, settings: list[tuple[int, int]]) -> None:
        for key, value in settings:
            if key == http2.INITIAL_WINDOW_SIZE:
                if value > http2.LARGEST_WINDOW:
                    raise BadMessage("the window is too large")
                change, self._stream_window = value - self._stream_window, value
                for stream in list(self._streams.values()):
                    stream.window += change
                    if stream.sending:
                        self._push(stream)
            elif key == http2.MAX_FRAME_SIZE:
                self._max_frame = max(http2.SMALLEST_MAX_FRAME, min(value, MAX_FRAME_BYTES))
        self._send(http2.frame(http2.SETTINGS, http2.ACK, 0))

    # -- calls ------------------------------------------------------------------------------------------------

    def _answer(self, stream: Stream, message: bytes) -> None:
        if stream.head.path != INFER:
            stream.answering = self._loop.create_task(self._tell(stream, message))
            return
        try:
            pending = self._service.submit(message, stream.head)
        except NotHere:
            stream.answering = self._loop.create_task(self._tell(stream, message))
        except Exception as error:
            self._fail(stream, fault(error, "a model"))
        else:
            stream.answering = pending.submitted
            pending.submitted.then(partial(self._infer_is_over, stream, pending))

    def _infer_is_over(self, stream: Stream, pending: Pending, outcome: Outcome) -> None:
        if self._streams.get(stream.id) is not stream:
            return  # the client has left
        if type(outcome) is not Completed:
            self._fail(stream, fault_of_outcome(outcome))
            return
        try:
            response = pending.answer(outcome)
        except CallFailed as failed:
            self._fail(stream, failed.fault)
            return
        size = len(response) + _PREFIX.size
        if (
            not stream.is_over
            or size > self._max_frame
            or size > stream.window
            or size > self._window
            or stream.sending
        ):
            self._send_message(stream, response)
            self._end(stream, _DONE)
            return
        self._window -= size
        del self._streams[stream.id]
        head = http2.frame_head
        self._send(
            b"".join(
                [
                    head(http2.HEADERS, http2.END_HEADERS, stream.id, len(_ANSWER)),
                    _ANSWER,
                    head(http2.DATA, 0, stream.id, size),
                    _PREFIX.pack(0, size - _PREFIX.size),
                    response,
                    head(http2.HEADERS, _LAST, stream.id, len(_DONE)),
                    _DONE,
                ]
            )
        )

    async def _tell(self, stream: Stream, message: bytes) -> None:
        path = stream.head.path
        try:
            if path == WATCH:
                await self._service.watch_health(message, partial(self._stream_message, stream))
            if path == INFER:
                response = await self._service.infer(message, stream.head)
            elif path in self._others:
                response = await self._others[path](message)
            else:
                response = await self._service.tell(path, message, stream.head)
            self._send_message(stream, response)
            self._end(stream, _DONE)
        except Exception as error:
            self._fail(stream, error.fault if isinstance(error, CallFailed) else fault(error, path))

    async def _converse(self, stream: Stream) -> None:
        try:
            await self._service.stream(self._messages(stream), partial(self._stream_message, stream), stream.head)
            self._send_headers(stream)
            self._end(stream, _DONE)
        except Exception as error:
            self._fail(stream, error.fault if isinstance(error, CallFailed) else fault(error, "a stream"))

    async def _messages(self, stream: Stream) -> AsyncIterator[bytes]:
        assert stream.inbox is not None
        while (message := await stream.inbox.get()) is not None:
            yield message
            # Only what was taken makes room: whoever sends faster than we answer has to wait.
            stream.uncredited += len(message) + _PREFIX.size
            if stream.uncredited >= min(CREDIT_STEP, self._max_message_bytes) and stream.id in self._streams:
                self._send(http2.window_update(stream.id, stream.uncredited))
                stream.uncredited = 0

    # -- frames out -------------------------------------------------------------------------------------------

    async def _stream_message(self, stream: Stream, message: bytes) -> None:
        self._send_message(stream, message)

    def _send_headers(self, stream: Stream) -> None:
        if not stream.has_headers:
            stream.has_headers = True
            self._send(http2.frame(http2.HEADERS, http2.END_HEADERS, stream.id, _ANSWER))

    def _send_message(self, stream: Stream, message: bytes) -> None:
        if self._streams.get(stream.id) is stream:
            self._send_headers(stream)
            stream.sending += _PREFIX.pack(0, len(message)) + message
            self._push(stream)

    def _end(self, stream: Stream, trailers: bytes) -> None:
        """Ends the call when all its messages are out."""
        if self._streams.get(stream.id) is stream:
            self._send_headers(stream)
            stream.trailers = trailers
            self._push(stream)

    def _push(self, stream: Stream) -> None:
        """Sends what the client has room for, and the end if nothing is left."""
        sending, sent = stream.sending, 0
        while size := min(len(sending) - sent, self._max_frame, max(0, stream.window), max(0, self._window)):
            stream.window -= size
            self._window -= size
            self._send(http2.frame(http2.DATA, 0, stream.id, sending[sent : sent + size]))
            sent += size
        stream.sending = sending[sent:]
        if not stream.sending and stream.trailers is not None:
            self._finish(stream, stream.trailers)

    def _fail(self, stream: Stream, fault: Fault) -> None:
        """Ends the call with an error; messages that have not left yet are lost with it."""
        if self._streams.get(stream.id) is not stream:
            return
        if stream.answering is not None and stream.answering is not asyncio.current_task():
            stream.answering.cancel()
        text = quote(fault.text[:MAX_TEXT], safe=_UNQUOTED, errors="replace").encode()
        trailers = [(b"grpc-status", b"%d" % fault.grpc_code), (b"grpc-message", text)]
        if fault.retry_after_ns is not None:
            trailers.append((b"grpc-retry-pushback-ms", b"%d" % max(1, fault.retry_after_ns // 1_000_000)))
        block = http2.header_block(trailers)
        self._finish(stream, block if stream.has_headers else _ANSWER + block)

    def _finish(self, stream: Stream, block: bytes) -> None:
        del self._streams[stream.id]
        self._send(http2.frame(http2.HEADERS, _LAST, stream.id, block))
        if not stream.is_over:
            # The answer is complete although the client still speaks: it may stop.
            self._send(http2.reset(stream.id, http2.NO_ERROR))

    def _drop(self, stream: Stream) -> None:
        """The client is no longer interested: what waits is withdrawn."""
        del self._streams[stream.id]
        if stream.answering is not None:
            stream.answering.cancel()

    def _send(self, data: bytes) -> None:
        """At the end of this turn of the loop, in one write with all else that is answered in it."""
        self._out.append(data)
        if len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))
            if self._is_leaving and not self._streams:
                self._transport.close()


class GrpcListener:
    """Takes connections on a port of its own."""

    def __init__(
        self, service: GrpcService, *, max_message_bytes: int, others: Mapping[str, Unary] | None = None
    ) -> None:
        self._connections: set[GrpcConnection] = set()
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
