"""The sending half of an HTTP/2 connection: frames to send, the peer's flow-control windows, and backpressure.

Data are sent as far as three things have room: the stream's window, the connection's window and the socket. The bytes
that wait on a connection are counted in both directions. Beyond the bound the call that holds the most is ended, so
that other clients on the same connection behind HAProxy do not suffer from it. A bound by the connection's window
instead would let one slow client block all of them. Frames sent in one iteration of the event loop leave in one write.
"""

import asyncio
from typing import Any, Generic, TypeVar

from serving.protocol import http2

LAST = http2.END_HEADERS | http2.END_STREAM
MAX_TURN = 1 << 20  # bytes of data per iteration of the event loop, before the socket is asked whether it takes more
MAX_UNREAD = 8 << 20  # bytes in the socket's buffer, for a peer that does not read; beyond, the connection is aborted
CREDIT_STEP = 1 << 20  # bytes that are consumed before a WINDOW_UPDATE is sent

H = TypeVar("H")


class Stream(Generic[H]):
    """One stream, which is one call. head: its decoded headers."""

    # Class attributes: most streams never change these, so creating a stream does not set them.
    consumed = 0  # bytes consumed that no WINDOW_UPDATE has reported yet
    arrived = 0  # bytes of data received, without padding
    is_over = False  # the client has sent END_STREAM
    sending = b""  # data of which the first `sent` bytes were sent
    sent = 0
    trailers: bytes | None = None  # header block that ends the stream when the data are sent
    kept = 0  # bytes of received data that wait to be decoded or computed
    held = 0  # bytes the stream was last counted with: `kept` plus what waits to be sent

    def __init__(self, id: int, head: H, window: int, room: int) -> None:
        self.id = id
        self.head = head
        self.window = window  # bytes that the server may send: the client's flow-control window
        self.room = room  # bytes that the client may send: the server's flow-control window


class FrameSender(asyncio.Protocol):
    """Sends the frames of one connection. max_held: bytes that may wait on it, in both directions together."""

    def __init__(self, max_held: int) -> None:
        self._streams: dict[int, Any] = {}
        self._window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._max_frame = http2.SMALLEST_MAX_FRAME
        self._out: list[bytes] = []
        self._room = MAX_TURN  # bytes of data left for this iteration of the event loop; 0 while the socket is full
        self._is_paused = False
        self._is_leaving = False
        self._blocked: dict[int, None] = {}  # streams that wait for the connection or the socket, oldest first
        self._held = 0
        self._max_held = max_held

    def _overflow(self, stream: Any) -> None:
        """Ends the stream, which holds the most of too many waiting bytes. The subclass implements it."""
        raise NotImplementedError

    # -- the transport's events -------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._room = 0

    def resume_writing(self) -> None:
        self._is_paused = False
        self._room = MAX_TURN
        self._unblock()

    # -- the peer's windows -----------------------------------------------------------------------------------

    def _widen(self, credit: int) -> None:
        self._window += credit
        if self._window > http2.LARGEST_WINDOW:
            raise http2.ConnectionFault(http2.FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1 bytes")
        self._unblock()

    def _widen_stream(self, stream: Any, credit: int) -> None:
        stream.window += credit
        if stream.window > http2.LARGEST_WINDOW:
            raise http2.StreamFault(http2.FLOW_CONTROL_ERROR, "the stream's window exceeds 2^31-1 bytes")
        if stream.sending:
            self._push(stream)

    def _change_windows(self, initial: int) -> None:
        """Applies a new INITIAL_WINDOW_SIZE of the peer to all streams (RFC 9113, section 6.9.2)."""
        change, self._stream_window = initial - self._stream_window, initial
        for stream in list(self._streams.values()):
            stream.window += change
            if stream.window > http2.LARGEST_WINDOW:
                raise http2.ConnectionFault(http2.FLOW_CONTROL_ERROR, "a stream's window exceeds 2^31-1 bytes")
            if change > 0 and stream.sending:
                self._push(stream)

    def _unblock(self) -> None:
        """Sends waiting data, stream by stream, while the connection has room."""
        while self._blocked and self._window > 0 and self._room > 0:
            id = next(iter(self._blocked))
            del self._blocked[id]
            self._push(self._streams[id])

    # -- sending of frames ------------------------------------------------------------------------------------

    def _push(self, stream: Any) -> None:
        """Sends as much of the stream's data as there is room for, then its trailers if no data are left."""
        sending, sent = stream.sending, stream.sent
        while self._room > 0 and (
            size := min(len(sending) - sent, self._max_frame, max(0, stream.window), max(0, self._window))
        ):
            stream.window -= size
            self._window -= size
            self._send(http2.frame(http2.DATA, 0, stream.id, sending[sent : sent + size]))
            sent += size
        stream.sent = sent
        if sent < len(sending):
            if stream.window > 0:
                self._blocked[stream.id] = None
            self._weigh(stream)
            return
        stream.sending, stream.sent = b"", 0
        if stream.held:
            self._weigh(stream)
        if stream.trailers is not None:
            self._finish(stream, stream.trailers)

    def _queue(self, stream: Any, data: bytes) -> None:
        """Sends these bytes after all earlier ones of the stream."""
        stream.sending, stream.sent = stream.sending[stream.sent :] + data if stream.sending else data, 0
        self._push(stream)

    def _finish(self, stream: Any, block: bytes) -> None:
        """Ends the stream with this header block as trailers. Data that are not sent yet are dropped."""
        self._forget(stream)
        self._send(http2.frame(http2.HEADERS, LAST, stream.id, block))

    def _forget(self, stream: Any) -> None:
        del self._streams[stream.id]
        self._blocked.pop(stream.id, None)
        self._held -= stream.held

    def _credit(self, stream: Any, size: int) -> None:
        """Gives the client credit for `size` bytes of the stream's data that were consumed."""
        stream.consumed += size
        if stream.consumed >= CREDIT_STEP and not stream.is_over:
            self._send(http2.window_update(stream.id, stream.consumed))
            stream.room += stream.consumed
            stream.consumed = 0

    def _send(self, data: bytes) -> None:
        """Sends a frame at the end of this iteration of the event loop, in one write with all others of it."""
        self._out.append(data)
        self._room -= len(data)
        if len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not out or self._transport.is_closing():
            return
        self._transport.write(b"".join(out))
        if not self._is_paused:
            self._room = MAX_TURN
            self._unblock()
        elif self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._transport.abort()
        if self._is_leaving and not self._streams:
            self._transport.close()

    # -- bound of the bytes that wait -------------------------------------------------------------------------

    def _weigh(self, stream: Any) -> None:
        """Counts the bytes that the stream holds; called wherever they change. If the connection holds too many, ends
        the streams that hold the most, possibly this one. A stream that is the only one to hold any is not bounded."""
        held = stream.kept + len(stream.sending) - stream.sent
        self._held += held - stream.held
        stream.held = held
        while self._held > self._max_held:
            largest = max(self._streams.values(), key=lambda stream: stream.held)
            if largest.held == self._held:
                return
            self._overflow(largest)
