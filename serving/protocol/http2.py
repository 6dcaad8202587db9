"""The part of HTTP/2 that a gRPC server needs, as bytes and values: frames out, header blocks in and out.

Header blocks are remembered by their bytes where that is sound: without a dynamic table equal ones have equal meaning.
We offer none, so that holds from a client's acknowledgement of our settings on. (HAProxy asks for entries even then; it
never refers to them.)
"""

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Generic, TypeVar

from hpack import Decoder, OversizedHeaderListError

from serving.protocol.errors import BadMessage, TooLarge
from serving.protocol.http2_heads import trailers_malformed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 2, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
DEFAULT_WINDOW, LARGEST_WINDOW, SMALLEST_MAX_FRAME, LARGEST_MAX_FRAME = 65535, 2**31 - 1, 16384, 2**24 - 1
FRAME_BYTES = 9
# While a client's table is in use every block must be read to its end, or no later one can be: up to this many times
# what a request may have, then the connection ends.
PATIENCE = 2
_MAX_BLOCKS = 512
_MAX_BLOCK_BYTES = 2048
_FIELD_BYTES = 8  # take as long to decode as a field, where they are Huffman's code

_FRAME = Struct(">HBBBI")  # the length is 24 bits: its high 16, its low 8
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")

Headers = tuple[tuple[str, str], ...]
T = TypeVar("T")


class ConnectionFault(BadMessage):
    """The peer breaks the protocol so that the connection cannot go on. code: for GOAWAY."""

    def __init__(self, code: int, fact: str) -> None:
        self.code = code
        super().__init__(fact)


class StreamFault(BadMessage):
    """The peer breaks the protocol on one stream; all others go on. code: for RST_STREAM."""

    def __init__(self, code: int, fact: str) -> None:
        self.code = code
        super().__init__(fact)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(kind, flags, stream, len(payload)) + payload


def frame_head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream)


def read_frame_head(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(size, kind, flags, stream) of the frame that begins at `offset`."""
    high, low, kind, flags, stream = _FRAME.unpack_from(data, offset)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def number(payload: bytes) -> int:
    """The 32 bits of a WINDOW_UPDATE or RST_STREAM, without the reserved one. Raises ConnectionFault."""
    if len(payload) != 4:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a frame of 4 bytes has another size")
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
    """The values that count, the last of each setting. Raises ConnectionFault."""
    if len(payload) % 6:
        raise ConnectionFault(FRAME_SIZE_ERROR, "settings come in 6 bytes each")
    found: dict[int, int] = {}
    for key, value in _SETTING.iter_unpack(payload):
        if key == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ConnectionFault(FLOW_CONTROL_ERROR, "the initial window is too large")
        if key == MAX_FRAME_SIZE and not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
            raise ConnectionFault(PROTOCOL_ERROR, "the largest frame is too small or too large")
        if key == ENABLE_PUSH and value > 1:
            raise ConnectionFault(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        found[key] = value
    return found


def unpadded(payload: bytes, flags: int) -> bytes:
    """What is left of a DATA or HEADERS frame without padding and priority. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else end + 1)
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        code = PROTOCOL_ERROR if flags & PADDED else FRAME_SIZE_ERROR
        raise ConnectionFault(code, "more padding or priority than frame")
    return payload[start:end]


class HeaderReader(Generic[T]):
    """Reads the header blocks of one connection; a request's as what `make` makes of them.

    known: what blocks mean without a table, shared by the connections of a server. max_bytes: of one request, as HPACK
    counts them.
    """

    def __init__(self, make: Callable[[Headers], T], known: dict[bytes, T], max_bytes: int) -> None:
        self._make = make
        self._known = known
        self._max_bytes = max_bytes
        self._decoder = Decoder(max_header_list_size=PATIENCE * max_bytes)
        self._has_table = True
        self.work = 0  # of decoding so far, in fields; so many bytes are as much as a field

    @property
    def longest_block(self) -> int:
        """How many bytes of a block are worth keeping until it is complete; a longer one is too large."""
        return PATIENCE * self._max_bytes if self._has_table else self._max_bytes

    def end_table(self) -> None:
        """The client has acknowledged that there is none."""
        self._has_table = False
        self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0
        self._decoder.max_header_list_size = self._max_bytes

    def read(self, block: bytes) -> T:
        """Of a request. Raises TooLarge, and ConnectionFault where the table is in doubt."""
        if not self._has_table and (known := self._known.get(block)) is not None:
            return known
        made = self._make(self._decode(block))
        if not self._has_table and len(block) <= _MAX_BLOCK_BYTES:
            if len(self._known) >= _MAX_BLOCKS:
                self._known.clear()
            self._known[block] = made
        return made

    def read_trailers(self, block: bytes) -> None:
        """As `read`, and raises StreamFault; what trailers say is of no interest."""
        if problem := trailers_malformed(self._decode(block)):
            raise StreamFault(PROTOCOL_ERROR, problem)

    def skip(self, block: bytes) -> None:
        """Of a stream that is over: only what it does to the table matters."""
        if self._has_table:
            self._decode(block)

    def _decode(self, block: bytes) -> Headers:
        large = f"the headers are larger than {self._max_bytes} bytes, the limit of this server"
        if len(block) > self.longest_block:
            if self._has_table:
                raise ConnectionFault(ENHANCE_YOUR_CALM, large)
            raise TooLarge(large)
        try:
            # A character for each byte, as in HTTP/1: what is no UTF-8 is one client's affair, and others' calls come
            # on the same connection.
            headers = tuple(
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in self._decoder.decode(block, raw=True)
            )
        except OversizedHeaderListError:
            self.work += len(block)
            if self._has_table:
                raise ConnectionFault(ENHANCE_YOUR_CALM, large) from None
            raise TooLarge(large) from None
        except Exception as error:  # whatever the decoder makes of bytes that are none of HPACK's
            raise ConnectionFault(COMPRESSION_ERROR, f"unreadable headers: {error}") from None
        self.work += len(headers) + len(block) // _FIELD_BYTES
        if self._has_table and sum(len(name) + len(value) + 32 for name, value in headers) > self._max_bytes:
            raise TooLarge(large)
        return headers


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A block that touches no table: names and values as they are."""
    parts: list[bytes] = []
    for name, value in headers:
        parts += (b"\0", string(name), string(value))
    return b"".join(parts)


def string(text: bytes) -> bytes:
    """A length, 7 bits of it in the first byte, and the text without Huffman's code."""
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    encoded, size = bytearray((127,)), size - 127
    while size > 127:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded) + text
