"""gzip and deflate (which in HTTP means a zlib stream), with a bound on what may come out.

The bound is on bytes, not on a ratio: a bomb stops as soon as it would exceed it, having cost no more memory than that.
"""

import gzip
import zlib

from serving.protocol.errors import BadMessage, TooLarge, UnsupportedEncoding

_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_STEP = 1 << 20
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


def inflate(data: bytes, coding: str, max_bytes: int) -> bytes:
    """Undoes `coding`. Raises TooLarge beyond `max_bytes`, BadMessage for damaged, cut-off or trailing data."""
    parts: list[bytes] = []
    room = max_bytes
    while True:
        inflater = zlib.decompressobj(_WINDOWS[coding])
        try:
            while not inflater.eof:
                # One byte more than there is room for tells "exactly full" from "too much".
                part = inflater.decompress(data, min(_STEP, room + 1))
                room -= len(part)
                if room < 0:
                    raise TooLarge(f"the body is larger than {max_bytes} bytes after decompression")
                parts.append(part)
                data = inflater.unconsumed_tail
                if not part and not data and not inflater.eof:
                    raise BadMessage(f"the {coding} body ends too early")
        except zlib.error as error:
            raise BadMessage(f"the body is not valid {coding}: {error}") from None
        data = inflater.unused_data
        if not data:
            return b"".join(parts)
        # A gzip file may hold several members; after a zlib stream nothing may follow.
        if coding == "deflate":
            raise BadMessage("bytes follow the end of the deflate body")


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
