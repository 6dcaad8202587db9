"""The sending half of an HTTP/2 connection: frames out, the peer's windows, and what waits for a slow reader.

Data leave as the peer makes room for them: in a stream's window, in the connection's, and in its socket. What waits is
counted per connection, in both directions; beyond the bound the call that holds the most is ended, so that the clients
that share the connection behind HAProxy do not pay for one. A bound by the connection's window instead would let one
slow client stop them all. What is said in one turn of the event loop leaves in one write.
"""

import asyncio
from typing import Any, Generic, TypeVar

from serving.protocol import http2

LAST = http2.END_HEADERS | http2.END_STREAM
MAX_TURN = 1 << 20  # bytes handed to the socket in one turn of the loop, before it is asked whether it takes more
MAX_UNREAD = 8 << 20  # of what no window holds back, waiting for a peer that does not read; then it is given up
CREDIT_STEP = 1 << 20  # how much is consumed before the sender is told that there is room again

H = TypeVar("H")


class Stream(Generic[H]):
    """One call: `head` is what was made of its headers."""

    # What most calls never change stands here, and costs them nothing.
    consumed = 0  # bytes that it may send again, and has not been told of
    arrived = 0  # bytes of its data, without padding
    is_over = False  # the client has said all it wants to say
    sending = b""  # data of which the first `sent` bytes are out
    sent = 0
    trailers: bytes | None = None  # what ends the stream when the data are out
    kept = 0  # bytes of its data that wait to be understood or computed
    held = 0  # all bytes it was last counted with

    def __init__(self, id: int, head: H, window: int, room: int) -> None:
        self.id = id
        self.head = head
        self.window = window  # how many bytes the client is ready to take
        self.room = room  # how many bytes it may send


class FrameSender(asyncio.Protocol):
    """max_held: bytes that may wait on this connection, in both directions together."""

    def __init__(self, max_held: int) -> None:
        self._streams: dict[int, Any] = {}
        self._window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._max_frame = http2.SMALLEST_MAX_FRAME
        self._out: list[bytes] = []
        self._room = MAX_TURN  # for data in this turn; 0 while the peer does not read
        self._is_paused = False
        self._is_leaving = False
        self._blocked: dict[int, None] = {}  # streams that wait for the connection, in the order of their turns
        self._held = 0
        self._max_held = max_held

    def _overflow(self, stream: Any) -> None:
        """For the subclass: ends the stream, which holds too much of what a connection may."""
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
            raise http2.ConnectionFault(http2.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self._unblock()

    def _widen_stream(self, stream: Any, credit: int) -> None:
        stream.window += credit
        if stream.window > http2.LARGEST_WINDOW:
            raise http2.StreamFault(http2.FLOW_CONTROL_ERROR, "the stream's window is too large")
        if stream.sending:
            self._push(stream)

    def _change_windows(self, initial: int) -> None:
        """The peer has changed what every stream begins with."""
        change, self._stream_window = initial - self._stream_window, initial
        for stream in list(self._streams.values()):
            stream.window += change
            if stream.window > http2.LARGEST_WINDOW:
                raise http2.ConnectionFault(http2.FLOW_CONTROL_ERROR, "a stream's window is too large")
            if change > 0 and stream.sending:
                self._push(stream)

    def _unblock(self) -> None:
        """Sends what waited for the connection, stream by stream, as far as it goes."""
        while self._blocked and self._window > 0 and self._room > 0:
            id = next(iter(self._blocked))
            del self._blocked[id]
            self._push(self._streams[id])

    # -- frames out -------------------------------------------------------------------------------------------

    def _push(self, stream: Any) -> None:
        """Sends what the client has room for, and the end if nothing is left."""
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
        """Sends these bytes when those before them are out."""
        stream.sending, stream.sent = stream.sending[stream.sent :] + data if stream.sending else data, 0
        self._push(stream)

    def _finish(self, stream: Any, block: bytes) -> None:
        """Ends the stream with these headers; data that have not left are lost."""
        self._forget(stream)
        self._send(http2.frame(http2.HEADERS, LAST, stream.id, block))

    def _forget(self, stream: Any) -> None:
        del self._streams[stream.id]
        self._blocked.pop(stream.id, None)
        self._held -= stream.held

    def _credit(self, stream: Any, size: int) -> None:
        """So much of the stream's data is dealt with: its client may send as much again."""
        stream.consumed += size
        if stream.consumed >= CREDIT_STEP and not stream.is_over:
            self._send(http2.window_update(stream.id, stream.consumed))
            stream.room += stream.consumed
            stream.consumed = 0

    def _send(self, data: bytes) -> None:
        """At the end of this turn of the loop, in one write with all else that is answered in it."""
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

    # -- what waits -------------------------------------------------------------------------------------------

    def _weigh(self, stream: Any) -> None:
        """Counts what the stream holds now; called wherever that changes. Too much ends the calls that hold the most,
        this one too. One alone may hold as much as its message or answer is long."""
        held = stream.kept + len(stream.sending) - stream.sent
        self._held += held - stream.held
        stream.held = held
        while self._held > self._max_held:
            largest = max(self._streams.values(), key=lambda stream: stream.held)
            if largest.held == self._held:
                return
            self._overflow(largest)
