"""The fast door of gRPC: reads and writes HTTP/2 itself, so that a plain infer request needs neither a task nor the
gRPC runtime.

It answers the same calls as `api/grpc/aio.py`, through the same service. HAProxy routes calls to it over a few
connections that all clients share: requests that arrive in one read are submitted together, and answers that are ready
together leave in one write. docs/decisions/0006-grpc-without-grpc.md has the measurements behind this design.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from struct import Struct
from urllib.parse import quote

from serving.api.admission.bound import HEADER as BOUND
from serving.api.beside import LONG_BYTES
from serving.api.exchange import CACHE, HIT, MISS, facts
from serving.api.faults import DEADLINE_PASSED, CallFailed, Fault
from serving.api.grpc.call import Call, Head
from serving.api.grpc.calls import NotHere
from serving.api.grpc.message import PREFIX_BYTES, prefix
from serving.api.grpc.pending import REQUEST_ID, Pending, fault
from serving.api.grpc.receiving import GrpcReceiver
from serving.api.grpc.service import INFER, STREAM, WATCH, GrpcService
from serving.api.http2.connection import Http2Connection
from serving.api.http2.sending import LAST
from serving.core.outcome import Completed, Outcome
from serving.protocol import http2

MAX_TEXT = 1000
TOO_MUCH_WAITS = Fault(
    503,
    "too many bytes wait on this connection: send fewer requests at a time, and read the answers",
    (),
    1_000_000_000,
)
MAX_UNSENT = 1 << 20  # bytes of a stream that wait for a slow client; beyond, the task that produces more waits
_UNQUOTED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # printable ASCII but "%", letters and digits
_STATUS_200 = b"\x88"  # entry 8 of HPACK's static table
_ANSWER = _STATUS_200 + http2.header_block([(b"content-type", b"application/grpc")])
_DONE = http2.header_block([(b"grpc-status", b"0")])
_NAME = b"\0" + http2.string(REQUEST_ID.encode())
_CACHED = {True: http2.header_block([(CACHE, HIT)]), False: http2.header_block([(CACHE, MISS)])}
# The bytes of an answer before its message: a HEADERS frame, the head of a DATA frame, and gRPC's prefix.
_OPENING = Struct(f">HBBBI{len(_ANSWER)}sHBBBIBI")

Unary = Callable[[bytes], Awaitable[bytes]]


class GrpcConnection(GrpcReceiver):
    """One client's connection.

    others: further unary methods by path, besides the service's.
    heads: cache of decoded headers by header block, shared by all connections.
    """

    def __init__(
        self,
        service: GrpcService,
        *,
        max_message_bytes: int,
        others: Mapping[str, Unary],
        connections: "set[Http2Connection[Head]]",
        heads: dict[bytes, Head],
    ) -> None:
        super().__init__(max_message_bytes=max_message_bytes, connections=connections, heads=heads)
        self._service = service
        self._others = others

    # -- begin and end of calls -------------------------------------------------------------------------------

    def _begin(self, id: int, head: Head) -> None:
        call = self._streams[id] = Call(id, head, self._stream_window, self._receive_window, self._age_ns)
        if head.problem is not None:
            self._fail(call, head.problem)
        elif head.path == INFER and head.is_grpc:
            return  # the engine enforces its deadline
        elif not head.is_grpc:
            self._fail(call, Fault(415, "not a gRPC call: POST and content-type application/grpc"))
        elif not (head.path in (STREAM, WATCH) or head.path in self._service.paths or head.path in self._others):
            self._fail(call, Fault(501, f"no such call: {head.path[:200]}"))
        else:
            self._start_clock(call)
            if head.path == STREAM and self._streams.get(id) is call:
                call.more, call.received = asyncio.Event(), bytearray()
                call.answering = self._loop.create_task(self._converse(call))

    def _start_clock(self, call: Call) -> None:
        """Starts the timer that fails the call with DEADLINE_EXCEEDED when its deadline passes."""
        call.start_clock()
        left_ns = call.time_left_ns()
        if left_ns == 1:
            self._expire(call)
        elif left_ns is not None:
            call.timer = self._loop.call_later(left_ns / 1e9, self._expire, call)

    def _expire(self, call: Call) -> None:
        self._fail(call, DEADLINE_PASSED)

    def _withdraw(self, stream: Call) -> None:
        if stream.answering is not None:
            stream.answering.cancel()

    def _may_arrive(self, call: Call) -> bool:
        if call.head.path == INFER:
            try:
                call.arriving = self._service.arriving(call)
            except CallFailed as failed:
                self._fail(call, failed.fault)
                return False
        return True

    def _forget(self, stream: Call) -> None:
        super()._forget(stream)
        if stream.arriving is not None:
            stream.arriving.arrived()
        if stream.timer is not None:
            stream.timer.cancel()

    # -- calls ------------------------------------------------------------------------------------------------

    def _answer(self, call: Call, message: bytes) -> None:
        if call.head.path != INFER or (len(message) > LONG_BYTES and self._service.takes_long(message)):
            call.answering = self._loop.create_task(self._answer_in_task(call, message))
            return
        try:
            pending = self._service.submit(message, call.head, call.age_ns)
        except NotHere:
            self._start_clock(call)
            if self._streams.get(call.id) is call:
                call.answering = self._loop.create_task(self._answer_in_task(call, message))
        except Exception as error:
            self._fail(call, fault(error, "a model"))
        else:
            call.answering = pending.submitted
            pending.submitted.then(partial(self._infer_is_over, call, pending))

    def _infer_is_over(self, call: Call, pending: Pending, outcome: Outcome) -> None:
        if pending.takes_long(outcome):
            call.answering = self._loop.create_task(self._answer_beside(call, pending, outcome))
            return
        named = _named(pending.request_id, outcome)
        bound = pending.planned.dispatch.model.bound.due()
        more = http2.header_block([(BOUND, bound)]) if bound else b""
        try:
            response = pending.answer(outcome)
        except CallFailed as failed:
            self._fail(call, failed.fault, named + more)
            return
        if self._streams.get(call.id) is not call:
            return  # the client has left
        size = len(response) + PREFIX_BYTES
        is_too_much = size > self._max_frame or size > call.window or size > self._window or size > self._room
        if is_too_much or more or call.held or not call.is_over:
            self._send_headers(call, more)
            self._send_message(call, response)
            self._end(call, _DONE + named)
            return
        self._window -= size
        del self._streams[call.id]
        headers = (0, len(_ANSWER), http2.HEADERS, http2.END_HEADERS, call.id, _ANSWER)
        opening = _OPENING.pack(*headers, size >> 8, size & 0xFF, http2.DATA, 0, call.id, 0, size - PREFIX_BYTES)
        trailers = http2.frame_head(http2.HEADERS, LAST, call.id, len(_DONE) + len(named))
        self._send(b"".join((opening, response, trailers, _DONE, named)))

    async def _answer_beside(self, call: Call, pending: Pending, outcome: Outcome) -> None:
        named = _named(pending.request_id, outcome)
        try:
            self._send_message(call, await pending.answer_beside(outcome))
            self._end(call, _DONE + named)
        except CallFailed as failed:
            self._fail(call, failed.fault, named)

    async def _answer_in_task(self, call: Call, message: bytes) -> None:
        path, named = call.head.path, b""
        try:
            if path == WATCH:
                await self._service.watch_health(message, call.peer, partial(self._stream_message, call))
            if path == INFER:
                named = _named(call.request_id())
                # The engine subtracts the age from the time limit. If the call's clock is started, which a call to
                # another process needs, its time left has the age subtracted already.
                age_ns = call.age_ns if call.timer is None else 0
                response, outcome = await self._service.infer(message, call, age_ns)
                named = _named(call.request_id(), outcome)
            elif path in self._others:
                response = await self._others[path](message)
            else:
                response = await self._service.answer(path, message, call)
            self._send_message(call, response)
            self._end(call, _DONE + named)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, path), named)

    async def _converse(self, call: Call) -> None:
        try:
            await self._service.stream(self._messages(call), partial(self._stream_message, call), call)
            self._send_headers(call)
            self._end(call, _DONE)
        except Exception as error:
            self._fail(call, error.fault if isinstance(error, CallFailed) else fault(error, "a stream"))

    # -- sending ----------------------------------------------------------------------------------------------

    async def _stream_message(self, call: Call, message: bytes) -> None:
        """Sends one message of an answer stream; waits while the client is slow to read (backpressure)."""
        self._send_message(call, message)
        if len(call.sending) > MAX_UNSENT and self._streams.get(call.id) is call:
            call.drained = call.drained or asyncio.Event()
            await call.drained.wait()

    def _push(self, stream: Call) -> None:
        super()._push(stream)
        if stream.drained is not None and not stream.sending:
            stream.drained.set()
            stream.drained = None

    def _send_headers(self, call: Call, more: bytes = b"") -> None:
        if not call.has_headers:
            call.has_headers = True
            self._send(http2.frame(http2.HEADERS, http2.END_HEADERS, call.id, _ANSWER + more))

    def _send_message(self, call: Call, message: bytes) -> None:
        if self._streams.get(call.id) is call:
            self._send_headers(call)
            self._queue(call, prefix(message) + message)

    def _end(self, call: Call, trailers: bytes) -> None:
        """Ends the call with these trailers after all its messages were sent."""
        if self._streams.get(call.id) is call:
            self._send_headers(call)
            call.trailers = trailers
            self._push(call)

    def _fail(self, call: Call, fault: Fault, more: bytes = b"") -> None:
        if self._streams.get(call.id) is not call:
            return
        text = quote(fault.text[:MAX_TEXT], safe=_UNQUOTED, errors="replace").encode()
        trailers = [(b"grpc-status", b"%d" % fault.grpc_code), (b"grpc-message", text)]
        block = http2.header_block([*trailers, *fault.grpc_trailers]) + more
        self._finish(call, block if call.has_headers else _ANSWER + block)
        if call.answering is not None and call.answering is not asyncio.current_task():
            call.answering.cancel()

    def _overflow(self, stream: Call) -> None:
        self._fail(stream, TOO_MUCH_WAITS)


def _named(request_id: str, outcome: Outcome | None = None) -> bytes:
    """Returns the trailers, encoded, that name a request, and say where its answer is from."""
    named = _NAME + http2.string(request_id.encode("latin-1"))
    if type(outcome) is not Completed:
        return named
    if outcome.features is not None:
        return named + http2.header_block(facts(outcome))
    return named if outcome.cached is None else named + _CACHED[outcome.cached]


class GrpcListener:
    """Accepts connections of the fast door on a port of its own. Parameters as of `GrpcConnection`."""

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

    async def open(self, hosts: str | Sequence[str], port: int) -> int:
        """Listens, and returns the port; 0 chooses a free one. Raises OSError if the port is in use."""
        self._server = await asyncio.get_running_loop().create_server(self._make, hosts, port)
        bound_port: int = self._server.sockets[0].getsockname()[1]
        return bound_port

    async def close(self) -> None:
        """Stops listening and drains all connections: calls in flight are still answered, new ones are refused."""
        self._server.close()
        for connection in list(self._connections):
            connection.leave()
