"""gzip and deflate, with bounds on the inflated size and on the work.

The inflated size is bounded in bytes, not as a ratio: zeros shrink a thousandfold (`perf_analyzer -z` sends them).
Inflating a bomb stops as soon as it exceeds the bound, so it costs no more memory than that. The number of members of a
gzip file is bounded too, since empty ones cost work and yield no data.
"""

import gzip
import zlib
from io import BytesIO

from serving.protocol.errors import BadMessage, TooLarge, UnsupportedEncoding

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_WINDOW = -15
MAX_MEMBERS = 2048  # bgzip, which cuts the finest, makes 1,025 of 64 MiB
_STEP = 1 << 20
# zlib returns a copy of the input it did not use, so the input is passed in small pieces, the first of a member the
# smallest, since the member may be short.
_FIRST_PIECE, _LARGEST_PIECE = 1 << 9, 1 << 16
# Tensors hardly shrink; level 1 costs a third of the default level and compresses nearly as well.
_LEVEL = 1


def coding_of(content_encoding: str) -> str:
    """Returns the coding that has to be undone, "" for none. Raises UnsupportedEncoding for several codings or an
    unknown one."""
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in _WINDOWS:
        raise UnsupportedEncoding(f"content-encoding {coding[:40]!r} is not supported: use gzip or deflate")
    return coding


def inflate(data: bytes | memoryview, coding: str, max_bytes: int) -> bytes:
    """Undoes `coding` in time linear in the bytes of input and output. Releases the interpreter's lock, so that it may
    run in a thread beside an event loop. Raises TooLarge beyond `max_bytes`, BadMessage for damaged, truncated or
    trailing data and for more than MAX_MEMBERS members."""
    view = memoryview(data)
    whole = BytesIO()  # one join at the end would hold the interpreter's lock
    room, offset, members = max_bytes, 0, 0
    while offset < len(view) or not members:
        members += 1
        # A gzip file may hold several members; after a deflate stream nothing may follow.
        if members > 1 and coding == "deflate":
            raise BadMessage("bytes follow the end of the deflate body")
        if members > MAX_MEMBERS:
            raise BadMessage(f"the {coding} body has more than {MAX_MEMBERS} members: compress it as one")
        try:
            offset, part_bytes = _inflate_member(view, offset, _window(view, coding), room, whole)
        except EOFError:
            raise BadMessage(f"the {coding} body ends too early") from None
        except zlib.error as error:
            raise BadMessage(f"the body is not valid {coding}: {error}") from None
        room -= part_bytes
        if room < 0:
            raise TooLarge(f"the body is larger than {max_bytes} bytes after decompression")
    return whole.getvalue()


def _window(view: memoryview, coding: str) -> int:
    """Returns zlib's `wbits` for the format. "deflate" means a zlib stream, but some clients send raw deflate."""
    if coding == "deflate" and len(view) >= 2:
        is_zlib = view[0] & 0x0F == zlib.DEFLATED and (view[0] << 8 | view[1]) % 31 == 0
        return _WINDOWS[coding] if is_zlib else _RAW_WINDOW
    return _WINDOWS[coding]


def _inflate_member(view: memoryview, offset: int, window: int, room: int, whole: BytesIO) -> tuple[int, int]:
    """Inflates one member and appends its data to `whole`. Returns the offset of the member's end and the number of
    inflated bytes, at most `room` + 1. Raises EOFError if the member is truncated."""
    inflater = zlib.decompressobj(window)
    piece_bytes, given = _FIRST_PIECE, 0
    while not inflater.eof:
        piece = view[offset : offset + piece_bytes]
        # One byte beyond the room distinguishes "exactly full" from "too large".
        part = inflater.decompress(piece, min(_STEP, room + 1 - given))
        offset += len(piece) - len(inflater.unconsumed_tail) - len(inflater.unused_data)
        piece_bytes = min(2 * piece_bytes, _LARGEST_PIECE)
        if part:
            whole.write(part)
            given += len(part)
            if given > room:
                break
        elif offset == len(view) and not inflater.eof:
            raise EOFError
    return offset, given


def wanted_coding(accept_encoding: str) -> str:
    """Returns the coding to compress the answer with, "" for none. Only a client that names exactly one known coding,
    as tritonclient does, gets a compressed answer.

    HTTP libraries send "gzip, deflate" by default. That permits compression but does not ask for it, and compressing
    tensors is expensive (100 microseconds for 4 KB that hardly shrink).
    """
    coding, _, weight = accept_encoding.partition(";")
    coding = coding.strip().lower()
    if coding not in ("gzip", "deflate") or weight.replace(" ", "").rstrip("0") in ("q=", "q=0."):
        return ""
    return coding


def deflate(data: bytes, coding: str) -> bytes:
    """Applies the coding that `wanted_coding` chose."""
    if coding == "gzip":
        return gzip.compress(data, _LEVEL, mtime=0)
    return zlib.compress(data, _LEVEL)
