"""The part of HTTP/2 that a gRPC server needs, as bytes and values: frames out, header blocks in and out.

Header blocks are remembered by their bytes where that is sound: without a dynamic table equal ones have equal meaning.
We offer none, so that holds from a client's acknowledgement of our settings on. (HAProxy asks for entries even then; it
never refers to them.)
"""

from collections.abc import Callable, Iterable
from struct import Struct
from typing import Generic, TypeVar

from hpack import Decoder, HPACKError

from serving.protocol.errors import BadMessage

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 3, 6, 7, 8
HEADER_TABLE_SIZE, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 3, 4, 5
DEFAULT_WINDOW, LARGEST_WINDOW, SMALLEST_MAX_FRAME = 65535, 2**31 - 1, 16384
FRAME_BYTES = 9
_MAX_BLOCKS = 512
_MAX_BLOCK_BYTES = 2048

_FRAME = Struct(">HBBBI")  # the length is 24 bits: its high 16, its low 8
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")

Headers = tuple[tuple[str, str], ...]
T = TypeVar("T")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(kind, flags, stream, len(payload)) + payload


def frame_head(kind: int, flags: int, stream: int, size: int) -> bytes:
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream)


def read_frame_head(data: bytes, offset: int) -> tuple[int, int, int, int]:
    """(size, kind, flags, stream) of the frame that begins at `offset`."""
    high, low, kind, flags, stream = _FRAME.unpack_from(data, offset)
    return high << 8 | low, kind, flags, stream & 0x7FFFFFFF


def number(payload: bytes) -> int:
    """The 32 bits of a WINDOW_UPDATE or RST_STREAM, without the reserved one. Raises BadMessage."""
    if len(payload) != 4:
        raise BadMessage("a frame of 4 bytes has another size")
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


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Raises BadMessage."""
    if len(payload) % 6:
        raise BadMessage("settings come in 6 bytes each")
    return [_SETTING.unpack_from(payload, offset) for offset in range(0, len(payload), 6)]


def unpadded(payload: bytes, flags: int) -> bytes:
    """What is left of a DATA or HEADERS frame without padding and priority. Raises BadMessage."""
    start, end = 0, len(payload)
    if flags & PADDED:
        start, end = 1, end - (payload[0] if payload else end + 1)
    if flags & WITH_PRIORITY:
        start += 5
    if start > end:
        raise BadMessage("more padding than frame")
    return payload[start:end]


class HeaderReader(Generic[T]):
    """Reads the header blocks of one connection, as what `make` makes of them.

    known: what blocks mean without a table, shared by the connections of a server.
    """

    def __init__(self, make: Callable[[Headers], T], known: dict[bytes, T], max_bytes: int) -> None:
        self._make = make
        self._known = known
        self._decoder = Decoder(max_header_list_size=max_bytes)
        self._has_table = True

    def end_table(self) -> None:
        """The client has acknowledged that there is none."""
        self._has_table = False
        self._decoder.header_table_size = self._decoder.max_allowed_table_size = 0

    def read(self, block: bytes) -> T:
        """Raises BadMessage; the connection cannot go on then, since its table is in doubt."""
        if not self._has_table and (known := self._known.get(block)) is not None:
            return known
        try:
            # A character for each byte, as in HTTP/1: what is no UTF-8 is one client's affair, and others' calls come
            # on the same connection.
            headers = tuple(
                (bytes(name).decode("latin-1"), bytes(value).decode("latin-1"))
                for name, value in self._decoder.decode(block, raw=True)
            )
        except HPACKError as error:
            raise BadMessage(f"unreadable headers: {error}") from None
        made = self._make(headers)
        if not self._has_table and len(block) <= _MAX_BLOCK_BYTES:
            if len(self._known) >= _MAX_BLOCKS:
                self._known.clear()
            self._known[block] = made
        return made


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
