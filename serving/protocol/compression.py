"""gzip and deflate, with bounds on what may come out and on the work it takes.

The inflated size is bounded in bytes, not as a ratio: zeros shrink a thousandfold (`perf_analyzer -z` sends them), and
a bomb stops as soon as it exceeds the bound, having cost no more memory than that. The members of a gzip file are
bounded too, since empty ones take work and give nothing.
"""

import gzip
import zlib
from io import BytesIO

from serving.protocol.errors import BadMessage, TooLarge, UnsupportedEncoding

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_WINDOW = -15
MAX_MEMBERS = 2048  # bgzip, which cuts the finest, makes 1,025 of 64 MiB
_STEP = 1 << 20
# What zlib does not use it hands back as a copy, so it is given a little at a time: less where a member is new, and may
# be short.
_FIRST_PIECE, _LARGEST_PIECE = 1 << 9, 1 << 16
# Tensors hardly shrink; the first level costs a third of the default and gives nearly as much.
_LEVEL = 1


def coding_of(content_encoding: str) -> str:
    """The one coding to undo, "" for none. Stacked or foreign codings are refused."""
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding not in _WINDOWS:
        raise UnsupportedEncoding(f"content-encoding {coding[:40]!r} is not supported: use gzip or deflate")
    return coding


def inflate(data: bytes | memoryview, coding: str, max_bytes: int) -> bytes:
    """Undoes `coding` in time linear in the bytes that go in and come out; holds no lock meanwhile, so that it may run
    beside an event loop. Raises TooLarge beyond `max_bytes`, BadMessage for damaged, cut-off or trailing data and for
    more than MAX_MEMBERS members."""
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
    """zlib's name for the format. "deflate" means a zlib stream, but some clients send what is inside of one."""
    if coding == "deflate" and len(view) >= 2:
        is_zlib = view[0] & 0x0F == zlib.DEFLATED and (view[0] << 8 | view[1]) % 31 == 0
        return _WINDOWS[coding] if is_zlib else _RAW_WINDOW
    return _WINDOWS[coding]


def _inflate_member(view: memoryview, offset: int, window: int, room: int, whole: BytesIO) -> tuple[int, int]:
    """Appends what one member holds to `whole`; where it ends, and how many bytes it gave, at most `room` + 1."""
    inflater = zlib.decompressobj(window)
    piece_bytes, given = _FIRST_PIECE, 0
    while not inflater.eof:
        piece = view[offset : offset + piece_bytes]
        # One byte more than there is room for tells "exactly full" from "too much".
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
    """How to compress the answer: only where the client names exactly one coding we know, as tritonclient does.

    HTTP libraries put "gzip, deflate" on everything unasked. That permits compression; it does not ask for it, and
    tensors would pay dearly (100 microseconds for 4 KB that hardly shrink).
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
