"""HTTP/2 as a server speaks it: frames, windows and streams, on one connection. What a stream means it does not know.

A subclass is told of calls and of their bytes; it hands over data and trailers. What is said in one turn of the event
loop leaves in one write.
"""

import asyncio
import logging
from typing import Any, Generic, TypeVar

from serving.protocol import http2
from serving.protocol.errors import BadMessage

_log = logging.getLogger(__name__)
MAX_STREAMS = 1024  # open at a time on one connection
MAX_HEADER_BYTES = 64 * 1024
MAX_FRAME_BYTES = 1 << 20
CREDIT_STEP = 1 << 20  # how much is consumed before the sender is told that there is room again
LAST = http2.END_HEADERS | http2.END_STREAM

H = TypeVar("H")


class Stream(Generic[H]):
    """One call: `head` is what was made of its headers."""

    __slots__ = ("head", "id", "is_over", "sending", "sent", "trailers", "window")

    def __init__(self, id: int, head: H, window: int) -> None:
        self.id = id
        self.head = head
        self.window = window  # how many bytes the client is ready to take
        self.is_over = False  # the client has said all it wants to say
        self.sending = b""  # data of which the first `sent` bytes are out
        self.sent = 0
        self.trailers: bytes | None = None  # what ends the stream when the data are out


class Http2Connection(asyncio.Protocol, Generic[H]):
    """receive_window: how much of a stream may arrive before the subclass makes room. connections: all open ones."""

    def __init__(
        self, reader: http2.HeaderReader[H], receive_window: int, connections: "set[Http2Connection[H]]"
    ) -> None:
        self._reader = reader
        self._receive_window = min(http2.LARGEST_WINDOW, max(http2.DEFAULT_WINDOW, receive_window))
        self._connections = connections
        self._streams: dict[int, Any] = {}
        self._last_stream = 0
        self._unread = b""
        self._has_preface = False
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and bytes of an unfinished header block
        self._consumed = 0
        self._window = http2.DEFAULT_WINDOW
        self._stream_window = http2.DEFAULT_WINDOW
        self._max_frame = http2.SMALLEST_MAX_FRAME
        self._out: list[bytes] = []
        self._is_leaving = False

    # -- for the subclass to say ------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> H:
        """Of a stream that begins, or trailers. Raises BadMessage."""
        return self._reader.read(block)

    def _begin(self, id: int, head: H) -> None:
        """A new stream: puts one into `_streams`."""
        raise NotImplementedError

    def _take_bytes(self, stream: Any, payload: bytes, *, is_last: bool) -> None:
        raise NotImplementedError

    def _end_of_bytes(self, stream: Any) -> None:
        """The client has said all it wants to say."""
        raise NotImplementedError

    def _withdraw(self, stream: Any) -> None:
        """The client is no longer interested; the stream is gone already."""
        raise NotImplementedError

    # -- the transport's events -------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._connections.add(self)
        self._send(
            http2.settings(
                [
                    (http2.HEADER_TABLE_SIZE, 0),
                    (http2.MAX_CONCURRENT_STREAMS, MAX_STREAMS),
                    (http2.INITIAL_WINDOW_SIZE, self._receive_window),
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
        elif kind == http2.SETTINGS and flags & http2.ACK:
            self._reader.end_table()
        elif kind == http2.SETTINGS:
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
        head = self._read_head(block)
        if id in self._streams:  # trailers of a client: they can only end its part
            if first_flags & http2.END_STREAM:
                self._end_of_bytes(self._streams[id])
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
        self._begin(id, head)
        if first_flags & http2.END_STREAM and id in self._streams:
            self._end_of_bytes(self._streams[id])

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
        self._take_bytes(stream, payload, is_last=bool(flags & http2.END_STREAM))

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

    # -- frames out -------------------------------------------------------------------------------------------

    def _push(self, stream: Any) -> None:
        """Sends what the client has room for, and the end if nothing is left."""
        sending, sent = stream.sending, stream.sent
        while size := min(len(sending) - sent, self._max_frame, max(0, stream.window), max(0, self._window)):
            stream.window -= size
            self._window -= size
            self._send(http2.frame(http2.DATA, 0, stream.id, sending[sent : sent + size]))
            sent += size
        stream.sent = sent
        if sent == len(sending):
            stream.sending, stream.sent = b"", 0
            if stream.trailers is not None:
                self._finish(stream, stream.trailers)

    def _queue(self, stream: Any, data: bytes) -> None:
        """Sends these bytes when those before them are out."""
        stream.sending, stream.sent = stream.sending[stream.sent :] + data if stream.sending else data, 0
        self._push(stream)

    def _finish(self, stream: Any, block: bytes) -> None:
        del self._streams[stream.id]
        self._send(http2.frame(http2.HEADERS, LAST, stream.id, block))
        if not stream.is_over:
            # The answer is complete although the client still speaks: it may stop.
            self._send(http2.reset(stream.id, http2.NO_ERROR))

    def _drop(self, stream: Any) -> None:
        del self._streams[stream.id]
        self._withdraw(stream)

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
