"""HTTP/2 as a server speaks it: streams, and the states they go through. What a stream means it does not know.

A subclass is told of calls and of their bytes; it hands over data and trailers. Held against RFC 9113 by the cases of
h2spec (tests/api/test_http2_conformance.py) and by floods of all kinds (test_http2_floods.py).
"""

from typing import Any

from serving.api.http2.gone import GoneStreams
from serving.api.http2.receiving import MAX_FRAME_BYTES, FrameReceiver, H
from serving.api.http2.sending import CREDIT_STEP
from serving.protocol import http2
from serving.protocol.errors import BadMessage, TooLarge

MAX_STREAMS = 1024  # open at a time on one connection
MAX_HEADER_BYTES = 64 * 1024
MIN_HELD_BYTES = 64 << 20
HELD_WINDOWS = 4  # how many of the largest messages may wait on one connection, in pieces or as answers


class Http2Connection(FrameReceiver[H]):
    """receive_window: how much of a stream may arrive before the subclass makes room. connections: all open ones."""

    def __init__(
        self, reader: http2.HeaderReader[H], receive_window: int, connections: "set[Http2Connection[H]]"
    ) -> None:
        self._receive_window = min(http2.LARGEST_WINDOW, max(http2.DEFAULT_WINDOW, receive_window))
        super().__init__(reader, max(MIN_HELD_BYTES, HELD_WINDOWS * self._receive_window))
        self._connections = connections
        self._gone = GoneStreams()
        self._consumed = 0

    # -- for the subclass to say ------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> H:
        """Of a stream that begins. Raises as `HeaderReader.read`."""
        return self._reader.read(block)

    def _begin(self, id: int, head: H) -> None:
        """A new stream: puts one into `_streams`."""
        raise NotImplementedError

    def _refuse(self, id: int, error: BadMessage) -> None:
        """A new stream whose head cannot be taken: answers it."""
        raise NotImplementedError

    def _take_bytes(self, stream: Any, payload: bytes) -> None:
        """`is_over` says whether these are the last."""
        raise NotImplementedError

    def _end_of_bytes(self, stream: Any) -> None:
        """The client has said all it wants to say."""
        raise NotImplementedError

    def _withdraw(self, stream: Any) -> None:
        """The client is no longer interested; the stream is gone already."""
        raise NotImplementedError

    # -- the transport's events -------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
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
        self._is_closed = True
        self._connections.discard(self)
        for stream in list(self._streams.values()):
            self._drop(stream)

    def leave(self) -> None:
        """Takes no new calls, and closes when those that run are answered."""
        self._is_leaving = True
        self._send(http2.goaway(self._last_stream, http2.NO_ERROR))

    # -- frames of streams ------------------------------------------------------------------------------------

    def _take_block(self, id: int, flags: int, block: bytes) -> None:
        """Of a stream that begins, or what a client says after its data, which can only end its part."""
        ends = bool(flags & http2.END_STREAM)
        stream = self._streams.get(id)
        if stream is not None:
            self._reader.read_trailers(block)
            if stream.is_over or not ends:
                code = http2.STREAM_CLOSED if stream.is_over else http2.PROTOCOL_ERROR
                raise http2.StreamFault(code, "headers in the middle of a stream")
            self._end_stream(stream)
            return
        if id <= self._last_stream:
            self._reader.skip(block)
            self._gone.check(id, ends=ends)
            return
        if id > self._last_stream + 2:
            self._gone.skip(self._last_stream + 2 if self._last_stream else 1, id)
        self._last_stream = id
        try:
            head = self._read_head(block)
        except TooLarge as error:
            self._refuse(id, error)
        else:
            if head.malformed:
                raise http2.StreamFault(http2.PROTOCOL_ERROR, head.malformed)
            if self._is_leaving or len(self._streams) >= MAX_STREAMS:
                self._spend(1)
                raise http2.StreamFault(http2.REFUSED_STREAM, "too many streams, or leaving")
            self._begin(id, head)
        if ends:
            if (begun := self._streams.get(id)) is not None:
                self._end_stream(begun)
            else:
                self._gone.check(id, ends=True)

    def _take_data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        self._consumed += size
        if self._consumed >= CREDIT_STEP:
            self._send(http2.window_update(0, self._consumed))
            self._consumed = 0
        stream = self._streams.get(id)
        if stream is None:
            self._check_begun(id)
            self._gone.check(id, ends=bool(flags & http2.END_STREAM))
            return
        stream.room -= size
        if stream.is_over or stream.room < 0:
            code = http2.STREAM_CLOSED if stream.is_over else http2.FLOW_CONTROL_ERROR
            raise http2.StreamFault(code, "data after the end, or beyond the window")
        if flags & http2.PADDED:
            payload = http2.unpadded(payload, flags & http2.PADDED)
            self._credit(stream, size - len(payload))
        if flags & http2.END_STREAM:
            stream.is_over = True
        elif not payload:
            self._spend(1)
        if stream.head.content_length is not None:
            stream.arrived += len(payload)
            self._check_length(stream)
        if payload:
            self._take_bytes(stream, payload)
        if stream.is_over and self._streams.get(id) is stream:
            self._end_of_bytes(stream)

    def _end_stream(self, stream: Any) -> None:
        stream.is_over = True
        self._check_length(stream)
        self._end_of_bytes(stream)

    def _check_length(self, stream: Any) -> None:
        length = stream.head.content_length
        if length is not None and (stream.arrived > length or (stream.is_over and stream.arrived < length)):
            raise http2.StreamFault(http2.PROTOCOL_ERROR, "content-length is not the length of the data")

    def _check_begun(self, id: int) -> None:
        if id == 0 or id % 2 == 0 or id > self._last_stream:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a frame of a stream that was never begun")

    def _take_credit(self, id: int, credit: int) -> None:
        if id == 0:
            if not credit:
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a window grows by nothing")
            self._widen(credit)
        elif (stream := self._streams.get(id)) is not None:
            if not credit:
                raise http2.StreamFault(http2.PROTOCOL_ERROR, "a window grows by nothing")
            self._widen_stream(stream, credit)
        else:
            self._check_begun(id)

    def _take_reset(self, id: int) -> None:
        self._check_begun(id)
        self._allowance.broken_off += 1
        self._gone.left(id)
        if (stream := self._streams.get(id)) is not None:
            self._drop(stream)

    # -- streams end ------------------------------------------------------------------------------------------

    def _finish(self, stream: Any, block: bytes) -> None:
        super()._finish(stream, block)
        if not stream.is_over:
            # The answer is complete although the client still speaks: it may stop.
            self._send(http2.reset(stream.id, http2.NO_ERROR))
            self._gone.cut(stream.id)

    def _reset(self, id: int, code: int) -> None:
        """Ends one stream for a fault of the protocol."""
        self._send(http2.reset(id, code))
        self._gone.cut(id)
        if (stream := self._streams.get(id)) is not None:
            self._drop(stream)

    def _drop(self, stream: Any) -> None:
        self._forget(stream)
        self._withdraw(stream)
