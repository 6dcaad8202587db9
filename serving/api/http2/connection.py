"""The server side of an HTTP/2 connection: its streams and their states (RFC 9113, section 5.1).

The class does not know what a stream carries. It calls the methods of a subclass when a stream begins and when its data
arrive; the subclass passes response data and trailers back. The cases of h2spec (tests/api/test_http2_conformance.py)
and floods of all kinds (test_http2_floods.py) test it.
"""

from itertools import islice
from typing import Any

from serving.api.http2.gone import GoneStreams
from serving.api.http2.receiving import MAX_FRAME_BYTES, FrameReceiver, H
from serving.api.http2.sending import CREDIT_STEP
from serving.protocol import http2
from serving.protocol.errors import BadMessage, TooLarge

MAX_STREAMS = 1024  # open at a time on one connection
DROPPED_AT_ONCE = 64  # of the streams of a lost connection, per iteration of the event loop
MAX_HEADER_BYTES = 64 * 1024
MIN_HELD_BYTES = 64 << 20
HELD_WINDOWS = 4  # bound of the bytes that wait on one connection, received or to be sent, in receive windows


class Http2Connection(FrameReceiver[H]):
    """One connection and its streams.

    receive_window: flow-control window of each stream: bytes that may arrive before the subclass calls `_credit`.
    connections: the set of open connections, from which this one removes itself when it is lost.
    """

    def __init__(
        self, reader: http2.HeaderReader[H], receive_window: int, connections: "set[Http2Connection[H]]"
    ) -> None:
        self._receive_window = min(http2.LARGEST_WINDOW, max(http2.DEFAULT_WINDOW, receive_window))
        super().__init__(reader, max(MIN_HELD_BYTES, HELD_WINDOWS * self._receive_window))
        self._connections = connections
        self._gone = GoneStreams()
        self._consumed = 0

    # -- methods of the subclass ------------------------------------------------------------------------------

    def _read_head(self, block: bytes) -> H:
        """Decodes the header block that begins a stream. Raises the same errors as `HeaderReader.read`."""
        return self._reader.read(block)

    def _begin(self, id: int, head: H) -> None:
        """Begins a stream: puts a `Stream` into `_streams`."""
        raise NotImplementedError

    def _refuse(self, id: int, error: BadMessage) -> None:
        """Answers a new stream whose header block is too large."""
        raise NotImplementedError

    def _take_bytes(self, stream: Any, payload: bytes) -> None:
        """Takes the payload of one DATA frame, without padding. `stream.is_over` is true if it is the last one."""
        raise NotImplementedError

    def _end_of_bytes(self, stream: Any) -> None:
        """Handles the end of the client's side of the stream (END_STREAM)."""
        raise NotImplementedError

    def _withdraw(self, stream: Any) -> None:
        """Cancels the work for a stream that was reset or whose connection was lost. It is no longer in `_streams`."""
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
        self._drop_all()

    def _drop_all(self) -> None:
        """Drops all streams, some per iteration of the event loop, since each may have tasks that then end."""
        for stream in list(islice(self._streams.values(), DROPPED_AT_ONCE)):
            self._drop(stream)
        if self._streams:
            self._loop.call_soon(self._drop_all)

    def leave(self) -> None:
        """Drains the connection: sends GOAWAY, refuses new streams, and closes when the open ones are answered."""
        self._is_leaving = True
        self._send(http2.goaway(self._last_stream, http2.NO_ERROR))

    # -- frames of streams ------------------------------------------------------------------------------------

    def _take_block(self, id: int, flags: int, block: bytes) -> None:
        """Takes a complete header block: it begins a stream, or it holds the trailers of one, which have to end it."""
        ends = bool(flags & http2.END_STREAM)
        stream = self._streams.get(id)
        if stream is not None:
            self._reader.read_trailers(block)
            if stream.is_over or not ends:
                code = http2.STREAM_CLOSED if stream.is_over else http2.PROTOCOL_ERROR
                raise http2.StreamFault(code, "HEADERS on an open stream must be trailers, with END_STREAM")
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
                raise http2.StreamFault(http2.REFUSED_STREAM, "too many open streams, or the connection drains")
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
            raise http2.StreamFault(code, "DATA after END_STREAM, or beyond the flow-control window")
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
            raise http2.StreamFault(http2.PROTOCOL_ERROR, "content-length differs from the length of the data")

    def _check_begun(self, id: int) -> None:
        if id == 0 or id % 2 == 0 or id > self._last_stream:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a frame on an idle stream")

    def _take_credit(self, id: int, credit: int) -> None:
        if id == 0:
            if not credit:
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a WINDOW_UPDATE with an increment of 0")
            self._widen(credit)
        elif (stream := self._streams.get(id)) is not None:
            if not credit:
                raise http2.StreamFault(http2.PROTOCOL_ERROR, "a WINDOW_UPDATE with an increment of 0")
            self._widen_stream(stream, credit)
        else:
            self._check_begun(id)

    def _take_reset(self, id: int) -> None:
        self._check_begun(id)
        self._allowance.broken_off += 1
        self._gone.left(id)
        if (stream := self._streams.get(id)) is not None:
            self._drop(stream)

    # -- end of streams ---------------------------------------------------------------------------------------

    def _finish(self, stream: Any, block: bytes) -> None:
        super()._finish(stream, block)
        if not stream.is_over:
            # The answer is complete before the request: RST_STREAM with NO_ERROR asks the client to stop sending
            # (RFC 9113, section 8.1).
            self._send(http2.reset(stream.id, http2.NO_ERROR))
            self._gone.cut(stream.id)

    def _reset(self, id: int, code: int) -> None:
        """Sends RST_STREAM with this error code and drops the stream."""
        self._send(http2.reset(id, code))
        self._gone.cut(id)
        if (stream := self._streams.get(id)) is not None:
            self._drop(stream)

    def _drop(self, stream: Any) -> None:
        self._forget(stream)
        self._withdraw(stream)
