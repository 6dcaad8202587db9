"""Cuts the longest lists of numbers out of large JSON messages, so that a decoder has little to read in one call.

A decoder that only searches for the end of a tensor's values holds the interpreter's lock for all of them. Here these
lists are found by their key, checked in pieces and cut out first. Unusual or invalid parts stay in the message.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from serving.protocol import json_pieces
from serving.protocol.errors import BadMessage
from serving.protocol.joining import joined
from serving.protocol.json_pieces import MAX_TENSORS, PIECE_BYTES, Apart, address, strict

_KEY = b'"data"'
_BEHIND_KEY = re.compile(rb'(?<!\\)"data"[ \t\n\r]{0,64}:[ \t\n\r]{0,64}(?=\[)')
_SPACE_BYTES = 256  # most bytes of white space behind a list
_VALID = msgspec.json.Decoder(msgspec.Raw)
_MAX_DEPTH = 64


class Cut(NamedTuple):
    """A list in a message, from offset `start` to `end` in bytes."""

    start: int
    end: int


def take_apart(message: bytes, tensors: str, piece_bytes: int = PIECE_BYTES) -> Apart:
    """Returns and raises the same as `json_pieces.take_apart`, but cuts long lists out first."""
    cuts = list(long_lists(message, piece_bytes))
    apart = _take_apart_around(message, cuts, tensors) if cuts else None
    # An invalid message is decoded as a whole, so that the error names the right place.
    return apart or json_pieces.take_apart(message, tensors)


def _take_apart_around(message: bytes, cuts: list[Cut], tensors: str) -> Apart | None:
    """Takes a message apart with `cuts` cut out. Returns None if it is invalid or a cut is not a tensor's values."""
    view = memoryview(message)
    parts: list[bytes | memoryview] = []
    places: dict[int, Cut] = {}
    offset = size = 0
    for cut in cuts:
        parts += (view[offset : cut.start], b"[]")
        places[size + cut.start - offset] = cut
        size += cut.start - offset + 2
        offset = cut.end
    short = joined([*parts, view[offset:]])
    try:
        apart = json_pieces.take_apart(short, tensors)
    except (BadMessage, msgspec.MsgspecError, RecursionError):
        return None
    data: list[memoryview | None] = []
    for values in apart.data:
        place = None if values is None else places.pop(address(values) - address(short), None)
        data.append(view[place.start : place.end] if place else values)
    return None if places else Apart(apart.rest, data)


def long_lists(message: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[Cut]:
    """Yields the lists behind a key "data" that are longer than two pieces and hold only numbers: valid JSON except for
    NaN and Infinity. In a valid message such a list is a value, not part of a string."""
    start = keys = 0
    while start < len(message) and keys <= MAX_TENSORS:
        key = message.find(_KEY, start, start + piece_bytes + len(_KEY) - 1)
        if key < 0:
            start += piece_bytes
            continue
        keys += 1
        start = key + len(_KEY)
        if found := _BEHIND_KEY.match(message, key):
            cut = _up_to_mark(message, found.end(), piece_bytes)
            if cut.end - cut.start > 2 * piece_bytes and _is_valid(message, cut, piece_bytes):
                yield cut
            start = max(found.end(), cut.end)


def _up_to_mark(message: bytes, start: int, piece_bytes: int) -> Cut:
    """Returns the range from `start` to the last bracket before the next quotation mark or brace."""
    end = start
    while end < len(message):
        places = [message.find(mark, end, end + piece_bytes) for mark in (b'"', b"{", b"}")]
        marks = [place for place in places if place >= 0]
        end = min(marks, default=end + piece_bytes)
        if marks:
            break
    return Cut(start, message.rfind(b"]", max(start, end - _SPACE_BYTES), end) + 1)


def _is_valid(message: bytes, cut: Cut, piece_bytes: int) -> bool:
    """Returns whether the list is valid. It is checked in pieces; each is completed by the brackets that are open."""
    depth, start = 0, cut.start
    while start < cut.end:
        is_last = cut.end - start <= piece_bytes
        end = cut.end if is_last else message.rfind(b",", start, start + piece_bytes) + 1
        piece = message[start : end if is_last else end - 1]
        opened = depth
        depth += piece.count(b"[") - piece.count(b"]")
        # A comma must be followed by a value.
        if not piece or (opened and piece.lstrip().startswith(b"]")):
            return False
        if (depth != 0) if is_last else not 0 < depth <= _MAX_DEPTH:
            return False
        try:
            _VALID.decode(b"[" * opened + strict(piece) + b"]" * depth)
        except (msgspec.MsgspecError, RecursionError):
            return False
        start = end
    return True
