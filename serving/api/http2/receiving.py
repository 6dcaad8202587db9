"""The receiving half of an HTTP/2 connection: bytes to frames, header blocks put together, and what is said of the
connection itself.

Nothing that a client sends raises: what breaks the protocol ends its stream or, where RFC 9113 says so, the connection.
Frames that cost the client nothing and bring no call forward are counted: a flood of them ends the connection.
"""

import logging
from typing import Any, Generic, Protocol, TypeVar

from serving.api.http2.allowance import Allowance
from serving.api.http2.sending import FrameSender
from serving.protocol import http2

_log = logging.getLogger(__name__)
MAX_FRAME_BYTES = 1 << 20
# What one connection may do in a turn of the event loop, before others have theirs.
TURN_STREAMS = 512
TURN_WORK = 4096  # of headers that had to be decoded, see HeaderReader


class RequestHead(Protocol):
    """What HTTP/2 itself needs of a request's headers."""

    malformed: str  # why they are no request's, "" if they are
    content_length: int | None


H = TypeVar("H", bound=RequestHead)


class _Block:
    """A header block that is not complete."""

    def __init__(self, id: int, flags: int, begin: bytes) -> None:
        self.id = id
        self.flags = flags
        self.bytes = bytearray(begin)


_NOTHING_YET = _Block(-1, 0, b"")  # before the client's first frame, which has to be its settings


class FrameReceiver(FrameSender, Generic[H]):
    """Hands over what belongs to streams."""

    def __init__(self, reader: http2.HeaderReader[H], max_held: int) -> None:
        super().__init__(max_held)
        self._reader = reader
        self._last_stream = 0
        self._unread = bytearray()
        self._needed = 0  # so many bytes make a frame of what is unread
        self._has_preface = False
        self._block: _Block | None = _NOTHING_YET
        self._is_closed = False
        self._is_resting = False  # until the next turn of the loop

    # -- for the subclass to say ------------------------------------------------------------------------------

    def _take_block(self, id: int, flags: int, block: bytes) -> None:
        """Headers of a stream, complete."""
        raise NotImplementedError

    def _take_data(self, flags: int, id: int, payload: bytes) -> None:
        raise NotImplementedError

    def _take_credit(self, id: int, credit: int) -> None:
        raise NotImplementedError

    def _take_reset(self, id: int) -> None:
        raise NotImplementedError

    def _reset(self, id: int, code: int) -> None:
        """Ends one stream for a fault of the protocol."""
        raise NotImplementedError

    # -- bytes to frames --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._allowance = Allowance(self._loop.time)

    def data_received(self, data: bytes) -> None:
        if self._is_closed:
            return
        if self._unread:
            self._unread += data
            if len(self._unread) < self._needed or self._is_resting:
                return
            data = bytes(self._unread)
            self._unread = bytearray()
        self._work(data)

    def _work(self, data: bytes) -> None:
        try:
            used = self._read(data)
            if used < len(data):
                self._unread += data[used:]
        except http2.ConnectionFault as error:
            self._end_connection(error.code, str(error))
        except Exception:
            _log.exception("a connection ends by a bug of ours")
            self._end_connection(http2.INTERNAL_ERROR, "a bug of ours")

    def _rest(self) -> None:
        """The others' turn."""
        self._is_resting = True
        self._needed = 0
        self._transport.pause_reading()
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_resting = False
        if not self._is_closed and not self._transport.is_closing():
            self._transport.resume_reading()
            data = bytes(self._unread)
            self._unread = bytearray()
            self._work(data)

    def _end_connection(self, code: int, why: str) -> None:
        _log.debug("closing a connection: %s", why)
        self._is_closed = True
        self._send(http2.goaway(self._last_stream, code))
        self._flush()
        self._transport.close()

    def _read(self, data: bytes) -> int:
        """How many bytes were understood. Raises ConnectionFault."""
        offset, end = 0, len(data)
        if not self._has_preface:
            if not http2.PREFACE.startswith(data[: len(http2.PREFACE)]):
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "not HTTP/2")
            if end < len(http2.PREFACE):
                return 0
            self._has_preface = True
            offset = len(http2.PREFACE)
        last_stream, last_work = self._last_stream + 2 * TURN_STREAMS, self._reader.work + TURN_WORK
        while offset + http2.FRAME_BYTES <= end:
            size, kind, flags, id = http2.read_frame_head(data, offset)
            if size > MAX_FRAME_BYTES:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "the frame is too large")
            start = offset + http2.FRAME_BYTES
            if start + size > end:
                self._needed = http2.FRAME_BYTES + size
                return offset
            offset = start + size
            try:
                self._take(kind, flags, id, data[start:offset])
            except http2.StreamFault as fault:
                _log.debug("resetting a stream: %s", fault)
                self._reset(id, fault.code)
            except Exception as error:
                if isinstance(error, http2.ConnectionFault) or not id:
                    raise
                _log.exception("a call ends by a bug of ours")
                self._reset(id, http2.INTERNAL_ERROR)
            if kind != http2.DATA and (self._last_stream > last_stream or self._reader.work > last_work):
                self._rest()
                return offset
        self._needed = 0
        return offset

    def _take(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        if self._block is not None:
            self._continue(self._block, kind, flags, id, payload)
        elif kind == http2.DATA:
            self._take_data(flags, id, payload)
        elif kind == http2.HEADERS:
            if not id % 2:
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a client's streams are odd")
            block = http2.unpadded(payload, flags)
            if flags & http2.END_HEADERS:
                self._take_block(id, flags, block)
            else:
                self._block = _Block(id, flags, block)
        elif kind == http2.WINDOW_UPDATE:
            self._take_credit(id, http2.number(payload))
        elif kind == http2.RST_STREAM:
            http2.number(payload)
            self._spend(1)
            self._take_reset(id)
        else:
            self._take_idle(kind, flags, id, payload)

    def _continue(self, block: _Block, kind: int, flags: int, id: int, payload: bytes) -> None:
        """While a block is not complete, and before the client's settings, nothing else may come."""
        if block is _NOTHING_YET and kind == http2.SETTINGS and not flags & http2.ACK:
            self._block = None
            self._take_idle(kind, flags, id, payload)
            return
        if kind != http2.CONTINUATION or id != block.id:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "another frame has to come first")
        self._spend(1)
        if len(block.bytes) <= self._reader.longest_block:  # one byte more says that it is too long
            block.bytes += payload
        if flags & http2.END_HEADERS:
            self._block = None
            self._take_block(id, block.flags, bytes(block.bytes))

    # -- of the connection ------------------------------------------------------------------------------------

    def _take_idle(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        """Frames about the connection, and those that say nothing to us."""
        self._spend(1)
        if kind in (http2.SETTINGS, http2.PING, http2.GOAWAY) and id:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "the frame belongs to no stream")
        if kind == http2.SETTINGS:
            self._adopt(flags, payload)
        elif kind == http2.PING:
            if len(payload) != 8:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "a ping has 8 bytes")
            if not flags & http2.ACK:
                self._send(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.PRIORITY:
            if not id:
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "the priority of no stream")
            if len(payload) != 5:
                raise http2.StreamFault(http2.FRAME_SIZE_ERROR, "a priority has 5 bytes")
        elif kind == http2.GOAWAY and len(payload) < 8:
            raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "a goodbye has at least 8 bytes")
        elif kind in (http2.PUSH_PROMISE, http2.CONTINUATION):
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a promise of a client, or a continuation of nothing")

    def _adopt(self, flags: int, payload: bytes) -> None:
        if flags & http2.ACK:
            if payload:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "an acknowledgement with settings")
            self._reader.end_table()
            return
        found = http2.read_settings(payload)
        if http2.MAX_FRAME_SIZE in found:
            self._max_frame = min(found[http2.MAX_FRAME_SIZE], MAX_FRAME_BYTES)
        initial = found.get(http2.INITIAL_WINDOW_SIZE, self._stream_window)
        if initial != self._stream_window:
            self._spend(len(self._streams))
            self._change_windows(initial)
        self._send(http2.frame(http2.SETTINGS, http2.ACK, 0))

    def _spend(self, frames: int) -> None:
        """Counts frames that bring no call forward. Raises ConnectionFault when there have been too many."""
        self._allowance.spend(frames, self._last_stream // 2)
