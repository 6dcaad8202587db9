"""gRPC's fast door: HTTP/2 read and written here, so that a plain infer request costs no task and no gRPC runtime.

It answers what `grpc.py` answers, by the same service. Behind HAProxy, which puts it there, all clients share a few
connections; what arrives in one read is submitted together, and what is answered together leaves in one write. The
measurements that led here: docs/decisions/0006-grpc-without-grpc.md.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from struct import Struct
from urllib.parse import quote

from serving.api.age import HERE
from serving.api.faults import DEADLINE_PASSED, CallFailed, Fault
from serving.api.grpc_call import Call, Head
from serving.api.grpc_message import CUT_OFF, ONE_MESSAGE, PREFIX_BYTES, message_coding, message_size, prefix
from serving.api.grpc_pending import REQUEST_ID, Pending, fault
from serving.api.grpc_service import INFER, STREAM, WATCH, GrpcService
from serving.api.grpc_tells import NotHere
from serving.api.http2_connection import MAX_HEADER_BYTES, Http2Connection
from serving.api.http2_sending import CREDIT_STEP, LAST
from serving.core.outcome import Outcome
from serving.protocol import http2
from serving.protocol.compression import inflate
from serving.protocol.errors import BadMessage, TooLarge

MAX_TEXT = 1000
SMALL_BYTES = 4096  # of a compressed message that is inflated at once
TOO_MUCH_WAITS = Fault(
    503, "more waits on this connection than may; send less at a time, and read what is answered", (), 1_000_000_000
)
MAX_UNSENT = 1 << 20  # bytes of a stream that wait for a slow client; then whoever makes more waits too
_UNQUOTED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_STATUS_200 = b"\x88"  # entry 8 of HPACK's table
_ANSWER = _STATUS_200 + http2.header_block([(b"content-type", b"application/grpc")])
_DONE = http2.header_block([(b"grpc-status", b"0")])
_NAME = b"\0" + http2.string(REQUEST_ID.encode())
# An answer of one message up to that message: a frame of headers, and the beginning of a frame of data.
_OPENING = Struct(f">HBBBI{len(_ANSWER)}sHBBBIBI")

Unary = Callable[[bytes], Awaitable[bytes]]


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
        super().__init__(reader, max_message_bytes + PREFIX_BYTES + CREDIT_STEP, connections)
        self._service = service
        self._max_message_bytes = max_message_bytes
        self._others = others
        self._age_ns = 0  # of the head that was read last

    # -- what comes -------------------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> Head:
        block, self._age_ns = HERE.split_block(block)
        return super()._read_head(block)

    def _begin(self, id: int, head: Head) -> None:
        call = self._streams[id] = Call(id, head, self._stream_window, self._receive_window, self._age_ns)
        if head.problem is not None:
            self._fail(call, head.problem)
        elif head.path == INFER and head.is_grpc:
            return  # the engine keeps its deadline
        elif not head.is_grpc:
            self._fail(call, Fault(415, "not a gRPC call: POST and content-type application/grpc"))
        elif not (head.path in (STREAM, WATCH) or head.path in self._service.tells or head.path in self._others):
            self._fail(call, Fault(501, f"no such call: {head.path[:200]}"))
        else:
            self._start_clock(call)
            if head.path == STREAM and self._streams.get(id) is call:
                call.more, call.received = asyncio.Event(), bytearray()
                call.answering = self._loop.create_task(self._converse(call))

    def _refuse(self, id: int, error: BadMessage) -> None:
        call = self._streams[id] = Call(id, Head(()), self._stream_window, self._receive_window, 0)
        self._fail(call, fault(error, "headers"))

    def _start_clock(self, call: Call) -> None:
        """From here on the call ends when its deadline passes, whatever it waits for."""
        call.start_clock()
        left_ns = call.time_left_ns()
        if left_ns == 1:
            self._expire(call)
        elif left_ns is not None:
            call.timer = self._loop.call_later(left_ns / 1e9, self._expire, call)

    def _expire(self, call: Call) -> None:
        self._fail(call, DEADLINE_PASSED)

    def _take_bytes(self, stream: Call, payload: bytes) -> None:
        if stream.more is not None:
            self._keep(stream, payload)
            stream.more.set()
            return
        if stream.answering is not None:
            self._fail(stream, ONE_MESSAGE)
            return
        received: bytes | bytearray = payload
        if stream.received:
            self._keep(stream, payload)
            received = stream.received
        try:
            size = message_size(received, self._max_message_bytes)
        except CallFailed as failed:
            self._fail(stream, failed.fault)
            return
        if size is None or len(received) < size:
            if received is payload:
                self._keep(stream, payload)
        elif len(received) > size:
            self._fail(stream, ONE_MESSAGE)
        else:
            self._take_message(stream, received)

    def _keep(self, call: Call, payload: bytes) -> None:
        if call.received is None:
            call.received = bytearray()
        call.received += payload
        call.kept = len(call.received)
        self._weigh(call)

    def _take_message(self, call: Call, received: bytes | bytearray) -> None:
        """The only one of its call."""
        flag, size = received[0], len(received)
        message = received[PREFIX_BYTES:] if isinstance(received, bytes) else self._cut(call, received, size)
        if flag:
            call.answering = self._loop.create_task(self._answer_compressed(call, flag, message))
        else:
            self._answer(call, message)

    def _cut(self, call: Call, received: bytearray, size: int) -> bytes:
        """The first message of what was kept, which is that long with its prefix."""
        message = bytes(memoryview(received)[PREFIX_BYTES:size])
        del received[:size]
        call.kept = len(received)
        self._weigh(call)
        return message

    def _end_of_bytes(self, stream: Call) -> None:
        if stream.more is not None:
            stream.more.set()
        elif stream.answering is None:
            self._fail(stream, CUT_OFF if stream.received else Fault(400, "the call has no message"))

    async def _messages(self, call: Call) -> AsyncIterator[bytes]:
        """Of a call that takes several, each cut off and inflated when the one before has been taken: who sends faster
        than we answer has to wait, since only what was taken makes room."""
        more, received = call.more, call.received
        assert more is not None
        assert received is not None
        while True:
            size = message_size(received, self._max_message_bytes)
            if size is not None and size <= len(received):
                flag, message = received[0], self._cut(call, received, size)
                yield await self._inflated(call, flag, message) if flag else message
                if self._streams.get(call.id) is call:
                    self._credit(call, size)
            elif not call.is_over:
                more.clear()
                await more.wait()
            elif received:
                raise CallFailed(CUT_OFF)
            else:
                return

    async def _inflated(self, call: Call, flag: int, message: bytes) -> bytes:
        """Raises CallFailed. What may become large does not hold up the event loop."""
        coding = message_coding(flag, call.head.coding)
        try:
            if len(message) <= SMALL_BYTES:
                return inflate(message, coding, self._max_message_bytes)
            return await self._loop.run_in_executor(None, inflate, message, coding, self._max_message_bytes)
        except TooLarge as error:
            raise CallFailed(fault(error, "a compressed message")) from None
        except BadMessage as error:
            raise CallFailed(Fault(500, str(error))) from None  # gRPC's specification calls it INTERNAL

    def _withdraw(self, stream: Call) -> None:
        if stream.answering is not None:
            stream.answering.cancel()

    def _forget(self, stream: Call) -> None:
        super()._forget(stream)
        if stream.timer is not None:
            stream.timer.cancel()

    # -- calls ------------------------------------------------------------------------------------------------

    async def _answer_compressed(self, call: Call, flag: int, message: bytes) -> None:
        try:
            inflated = await self._inflated(call, flag, message)
        except CallFailed as failed:
            self._fail(call, failed.fault)
            return
        call.kept = len(inflated)
        self._weigh(call)
        self._answer(call, inflated)

    def _answer(self, call: Call, message: bytes) -> None:
        if call.head.path != INFER:
            call.answering = self._loop.create_task(self._tell(call, message))
            return
        try:
            pending = self._service.submit(message, call.head, call.age_ns)
        except NotHere:
            self._start_clock(call)
            call.answering = self._loop.create_task(self._tell(call, message))
        except Exception as error:
            self._fail(call, fault(error, "a model"))
        else:
            call.answering = pending.submitted
            pending.submitted.then(partial(self._infer_is_over, call, pending))

    def _infer_is_over(self, call: Call, pending: Pending, outcome: Outcome) -> None:
        named = _NAME + http2.string(pending.request_id.encode("latin-1"))
        try:
            response = pending.answer(outcome)
        except CallFailed as failed:
            self._fail(call, failed.fault, named)
            return
        if self._streams.get(call.id) is not call:
            return  # the client has left
        size = len(response) + PREFIX_BYTES
        is_too_much = size > self._max_frame or size > call.window or size > self._window or size > self._room
        if is_too_much or call.held or not call.is_over:
            self._send_message(call, response)
            self._end(call, _DONE + named)
            return
        self._window -= size
        del self._streams[call.id]
        headers = (0, len(_ANSWER), http2.HEADERS, http2.END_HEADERS, call.id, _ANSWER)
        opening = _OPENING.pack(*headers, size >> 8, size & 0xFF, http2.DATA, 0, call.id, 0, size - PREFIX_BYTES)
        trailers = http2.frame_head(http2.HEADERS, LAST, call.id, len(_DONE) + len(named))
        self._send(b"".join((opening, response, trailers, _DONE, named)))

    async def _tell(self, call: Call, message: bytes) -> None:
        path = call.head.path
        try:
            if path == WATCH:
                await self._service.watch_health(message, partial(self._stream_message, call))
            if path == INFER:
                response = await self._service.infer(message, call)
            elif path in self._others:
                response = await self._others[path](message)
            else:
                response = await self._service.tell(path, message, call)
            self._send_message(call, response)
            self._end(call, _DONE)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, path))

    async def _converse(self, call: Call) -> None:
        try:
            await self._service.stream(self._messages(call), partial(self._stream_message, call), call)
            self._send_headers(call)
            self._end(call, _DONE)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, "a stream"))

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
            self._queue(call, prefix(message) + message)

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
        text = quote(fault.text[:MAX_TEXT], safe=_UNQUOTED, errors="replace").encode()
        trailers = [(b"grpc-status", b"%d" % fault.grpc_code), (b"grpc-message", text)]
        if fault.retry_after_ns is not None:
            trailers.append((b"grpc-retry-pushback-ms", b"%d" % max(1, fault.retry_after_ns // 1_000_000)))
        trailers += [header for header in fault.headers if header[0].startswith(b"grpc-")]
        block = http2.header_block(trailers) + more
        self._finish(call, block if call.has_headers else _ANSWER + block)
        if call.answering is not None and call.answering is not asyncio.current_task():
            call.answering.cancel()

    def _overflow(self, stream: Call) -> None:
        self._fail(stream, TOO_MUCH_WAITS)


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
