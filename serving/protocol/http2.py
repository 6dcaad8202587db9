"""Encodes and decodes the parts of HTTP/2 (RFC 9113) and HPACK (RFC 7541) that a gRPC server needs.

Decoded header blocks are cached by their bytes where that is correct: without a dynamic table, equal blocks have equal
meaning. The server announces a table of size 0, so the cache is used after the client acknowledged these settings.
(HAProxy still sends entries for the table then, but never refers to them.)
"""

import logging
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Generic, TypeVar

from hpack import Decoder, OversizedHeaderListError

from serving.protocol.errors import BadMessage, TooLarge
from serving.protocol.http2_heads import trailers_malformed

logging.getLogger("hpack").setLevel(logging.INFO)  # at DEBUG it logs every header, and so every key

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 2, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
DEFAULT_WINDOW, LARGEST_WINDOW, SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 65535, 2**31 - 1, 16384, 2**24 - 1
FRAME_BYTES = 9
# While a client's dynamic table is in use, every block has to be decoded to its end, or later blocks cannot be decoded.
# A block of more than this many times the limit of a request ends the connection.
PATIENCE = 2
_MAX_BLOCKS = 512
_MAX_BLOCK_BYTES = 2048

_FRAME = Struct(">HBBBI")  # the length is 24 bits: its high 16, its low 8
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")

Headers = tuple[tuple[str, str], ...]
T = TypeVar("T")


class ConnectionFault(BadMessage):
    """A connection error (RFC 9113, section 5.4.1): the connection has to be closed. code: error code for GOAWAY."""

    def __init__(self, code: int, fact: str) -> None:
        self.code = code
        super().__init__(fact)


class StreamFault(BadMessage):
    """A stream error (RFC 9113, section 5.4.2): only this stream ends. code: error code for RST_STREAM."""

    def __init__(self, code: int, fact: str) -> None:
        self.code = code
        super().__init__(fact)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(kind, flags, stream, len(payload)) + payload


def frame_head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream)


def read_frame_head(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """Returns (size, kind, flags, stream) of the frame that begins at `offset`. size: bytes of its payload."""
    high, low, kind, flags, stream = _FRAME.unpack_from(data, offset)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def number(payload: bytes) -> int:
    """Returns the number in a WINDOW_UPDATE or RST_STREAM, without the reserved bit. Raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE and RST_STREAM must have 4 bytes")
    value: int = _NUMBER.unpack(payload)[0]
    return value & 0x7FFFFFFF


def window_update(stream: int, credit: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(credit))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last_stream: int, code: int) -> bytes:
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last_stream) + _NUMBER.pack(code))


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join([_SETTING.pack(*value) for value in values]))


def read_settings(payload: bytes) -> dict[int, int]:
    """Returns the values by setting; the last value of a setting counts. Raises ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS must have 6 bytes per setting")
    values: dict[int, int] = {}
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the initial window is too large")
        if key == MAX_FRAME_SIZE and not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
            raise ConnectionFault(PROTOCOL_ERROR, "the largest frame is too small or too large")
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        values[key] = value
    return values


def unpadded(payload: bytes, flags: int) -> bytes:
    """Returns the payload of a DATA or HEADERS frame without padding and priority. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else end + 1)
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        code = PROTOCOL_ERROR if flags & PADDED else FRAME_SIZE_ERROR
        raise ConnectionFault(code, "padding or priority is longer than the frame")
    return payload[start:end]


class HeaderReader(Generic[T]):
    """Decodes the header blocks of one connection.

    make: converts the headers of a request into the value that `read` returns.
    known: cache of such values by header block, shared by the connections of a server.
    max_bytes: limit for the headers of one request, counted as HPACK does (32 bytes more per field).
    """

    def __init__(self, make: Callable[[Headers], T], known: dict[bytes, T], max_bytes: int) -> None:
        self._make = make
        self._known = known
        self._max_bytes = max_bytes
        self._decoder = Decoder(max_header_list_size=PATIENCE * max_bytes)
        self._has_table = True

    @property
    def longest_block(self) -> int:
        """The largest block in bytes that can be decoded; of a longer one no more bytes need to be kept."""
        return PATIENCE * self._max_bytes if self._has_table else self._max_bytes

    def end_table(self) -> None:
        """Ends the use of a dynamic table: the client has acknowledged the table size 0."""
        self._has_table = False
        self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0
        self._decoder.max_header_list_size = self._max_bytes

    def read(self, block: bytes) -> T:
        """Decodes the headers of a request. Raises TooLarge; ConnectionFault if the dynamic table is out of sync."""
        if not self._has_table and (known := self._known.get(block)) is not None:
            return known
        made = self._make(self._decode(block))
        if not self._has_table and len(block) <= _MAX_BLOCK_BYTES:
            if len(self._known) >= _MAX_BLOCKS:
                self._known.clear()
            self._known[block] = made
        return made

    def read_trailers(self, block: bytes) -> None:
        """Decodes and checks trailers, and drops them. Raises StreamFault for malformed ones, else as `read` does."""
        if problem := trailers_malformed(self._decode(block)):
            raise StreamFault(PROTOCOL_ERROR, problem)

    def skip(self, block: bytes) -> None:
        """Decodes the header block of a closed stream only for its effect on the dynamic table."""
        if self._has_table:
            self._decode(block)

    def _decode(self, block: bytes) -> Headers:
        large = f"the headers are larger than {self._max_bytes} bytes, the limit of this server"
        if len(block) > self.longest_block:
            if self._has_table:
                raise ConnectionFault(ENHANCE_YOUR_CALM, large)
            raise TooLarge(large)
        try:
            # Latin-1 decodes any bytes, as in HTTP/1: invalid UTF-8 of one client must not end the connection that it
            # shares with others.
            headers = tuple(
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in self._decoder.decode(block, raw=True)
            )
        except OversizedHeaderListError:
            if self._has_table:
                raise ConnectionFault(ENHANCE_YOUR_CALM, large) from None
            raise TooLarge(large) from None
        except Exception as error:  # the decoder raises many types for malformed blocks
            raise ConnectionFault(COMPRESSION_ERROR, f"unreadable headers: {error}") from None
        if self._has_table and sum(len(name) + len(value) + 32 for name, value in headers) > self._max_bytes:
            raise TooLarge(large)
        return headers


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encodes headers as literals without indexing, which use no table."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", string(name), string(value))
    return b"".join(parts)


def string(text: bytes) -> bytes:
    """Encodes an HPACK string without Huffman code: the length with a 7-bit prefix, then the text."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    encoded, size = bytearray((127,)), size - 127
    while size > 127:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + text
