"""The receiving half of an HTTP/2 connection: cuts bytes into frames, assembles header blocks, and handles the frames
about the connection itself.

A violation of the protocol never raises an exception into the event loop: it ends its stream or, where RFC 9113 demands
it, the connection. Frames that cost the client nothing and advance no call are counted; a flood of them ends the
connection.
"""

import logging
from typing import Any, Generic, Protocol, TypeVar

from serving.api.exchange import now_ns
from serving.api.http2.allowance import Allowance
from serving.api.http2.sending import FrameSender
from serving.protocol import http2

_log = logging.getLogger(__name__)
MAX_FRAME_BYTES = 1 << 20
# The time for which one connection may be read in one iteration of the event loop, so that it does not delay others.
TURN_NS = 5_000_000


class RequestHead(Protocol):
    """The facts of a request's headers that HTTP/2 itself needs."""

    malformed: str  # why they are malformed (RFC 9113, section 8.1.1), "" if they are well-formed
    content_length: int | None


H = TypeVar("H", bound=RequestHead)


class _Block:
    """A header block whose END_HEADERS has not arrived yet."""

    def __init__(self, id: int, flags: int, begin: bytes) -> None:
        self.id = id
        self.flags = flags
        self.bytes = bytearray(begin)


_NOTHING_YET = _Block(-1, 0, b"")  # stands for the client's first frame, which has to be SETTINGS


class FrameReceiver(FrameSender, Generic[H]):
    """Reads frames, and passes those of streams to the methods of its subclass."""

    def __init__(self, reader: http2.HeaderReader[H], max_held: int) -> None:
        super().__init__(max_held)
        self._reader = reader
        self._last_stream = 0
        self._unread = bytearray()
        self._needed = 0  # bytes of `_unread` that complete its first frame; 0 if not known
        self._has_preface = False
        self._block: _Block | None = _NOTHING_YET
        self._is_closed = False
        self._is_resting = False  # no frame is read until the next iteration of the event loop

    # -- methods of the subclass ------------------------------------------------------------------------------

    def _take_block(self, id: int, flags: int, block: bytes) -> None:
        """Takes a complete header block."""
        raise NotImplementedError

    def _take_data(self, flags: int, id: int, payload: bytes) -> None:
        raise NotImplementedError

    def _take_credit(self, id: int, credit: int) -> None:
        raise NotImplementedError

    def _take_reset(self, id: int) -> None:
        raise NotImplementedError

    def _reset(self, id: int, code: int) -> None:
        """Ends one stream by RST_STREAM with this error code."""
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
            _log.exception("closing an HTTP/2 connection after an internal error")
            self._end_connection(http2.INTERNAL_ERROR, "internal error")

    def _rest(self) -> None:
        """Stops reading until the next iteration of the event loop, so that other connections are served."""
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
        _log.debug("closing an HTTP/2 connection: %s", why)
        self._is_closed = True
        self._send(http2.goaway(self._last_stream, code))
        self._flush()
        self._transport.close()

    def _read(self, data: bytes) -> int:
        """Handles the complete frames in `data` and returns how many bytes they have. Raises ConnectionFault."""
        offset, end = 0, len(data)
        if not self._has_preface:
            if not http2.PREFACE.startswith(data[: len(http2.PREFACE)]):
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "the connection preface of HTTP/2 is missing")
            if end < len(http2.PREFACE):
                return 0
            self._has_preface = True
            offset = len(http2.PREFACE)
        ends_ns = now_ns() + TURN_NS
        while offset + http2.FRAME_BYTES <= end:
            size, kind, flags, id = http2.read_frame_head(data, offset)
            if size > MAX_FRAME_BYTES:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "the frame is larger than MAX_FRAME_SIZE")
            start = offset + http2.FRAME_BYTES
            if start + size > end:
                self._needed = http2.FRAME_BYTES + size
                return offset
            offset = start + size
            try:
                self._take(kind, flags, id, data[start:offset])
            except http2.StreamFault as fault:
                _log.debug("resetting an HTTP/2 stream: %s", fault)
                self._reset(id, fault.code)
            except Exception as error:
                if isinstance(error, http2.ConnectionFault) or not id:
                    raise
                _log.exception("resetting an HTTP/2 stream after an internal error")
                self._reset(id, http2.INTERNAL_ERROR)
            if now_ns() >= ends_ns:
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
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "a client's streams must have odd numbers")
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
        """Takes the frame that has to come next: a CONTINUATION of an incomplete header block, or the client's first
        SETTINGS. Raises ConnectionFault for any other."""
        if block is _NOTHING_YET and kind == http2.SETTINGS and not flags & http2.ACK:
            self._block = None
            self._take_idle(kind, flags, id, payload)
            return
        if kind != http2.CONTINUATION or id != block.id:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "CONTINUATION, or the first SETTINGS, has to come first")
        self._spend(1)
        if len(block.bytes) <= self._reader.longest_block:  # beyond that it is too large already; more need not be kept
            block.bytes += payload
        if flags & http2.END_HEADERS:
            self._block = None
            self._take_block(id, block.flags, bytes(block.bytes))

    # -- frames about the connection --------------------------------------------------------------------------

    def _take_idle(self, kind: int, flags: int, id: int, payload: bytes) -> None:
        """Handles frames about the connection; ignores PRIORITY and unknown frames. Raises ConnectionFault or
        StreamFault for malformed ones."""
        self._spend(1)
        if kind in (http2.SETTINGS, http2.PING, http2.GOAWAY) and id:
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "SETTINGS, PING and GOAWAY must be on stream 0")
        if kind == http2.SETTINGS:
            self._adopt(flags, payload)
        elif kind == http2.PING:
            if len(payload) != 8:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "PING must have 8 bytes")
            if not flags & http2.ACK:
                self._send(http2.frame(http2.PING, http2.ACK, 0, payload))
        elif kind == http2.PRIORITY:
            if not id:
                raise http2.ConnectionFault(http2.PROTOCOL_ERROR, "PRIORITY must not be on stream 0")
            if len(payload) != 5:
                raise http2.StreamFault(http2.FRAME_SIZE_ERROR, "PRIORITY must have 5 bytes")
        elif kind == http2.GOAWAY and len(payload) < 8:
            raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "GOAWAY must have at least 8 bytes")
        elif kind in (http2.PUSH_PROMISE, http2.CONTINUATION):
            text = "PUSH_PROMISE of a client, or CONTINUATION without an open header block"
            raise http2.ConnectionFault(http2.PROTOCOL_ERROR, text)

    def _adopt(self, flags: int, payload: bytes) -> None:
        if flags & http2.ACK:
            if payload:
                raise http2.ConnectionFault(http2.FRAME_SIZE_ERROR, "SETTINGS with ACK must be empty")
            self._reader.end_table()
            return
        settings = http2.read_settings(payload)
        if http2.MAX_FRAME_SIZE in settings:
            self._max_frame = min(settings[http2.MAX_FRAME_SIZE], MAX_FRAME_BYTES)
        initial = settings.get(http2.INITIAL_WINDOW_SIZE, self._stream_window)
        if initial != self._stream_window:
            self._spend(len(self._streams))
            self._change_windows(initial)
        self._send(http2.frame(http2.SETTINGS, http2.ACK, 0))

    def _spend(self, frames: int) -> None:
        """Counts frames that advance no call. Raises ConnectionFault when there have been too many."""
        self._allowance.spend(frames, self._last_stream // 2)
