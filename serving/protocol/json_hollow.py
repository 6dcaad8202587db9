"""Large JSON messages without their longest lists of numbers, so that little is left for a decoder to read at once.

A decoder that only looks for where the values of a tensor end holds the interpreter's lock for all of them. Here they
are cut out first, found by their key and checked in pieces. What is unusual, or wrong, stays where it is.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from serving.protocol import json_pieces
from serving.protocol.errors import BadMessage
from serving.protocol.joining import joined
from serving.protocol.json_pieces import MAX_TENSORS, PIECE_BYTES, Apart, address, has_numbers_beyond_json, strictly

_KEY = b'"data"'
_BEHIND_KEY = re.compile(rb'(?<!\\)"data"[ \t\n\r]{0,64}:[ \t\n\r]{0,64}(?=\[)')
_SPACE_BYTES = 256  # behind a list, at most
_VALID = msgspec.json.Decoder(msgspec.Raw)
_MAX_DEPTH = 64


class Cut(NamedTuple):
    """A list that stands from `start` to `end` of a message."""

    start: int
    end: int


def take_apart(message: bytes, tensors: str, piece_bytes: int = PIECE_BYTES) -> Apart:
    """What `json_pieces.take_apart` gives and raises."""
    cuts = list(long_lists(message, piece_bytes))
    found = _take_apart_around(message, cuts, tensors) if cuts else None
    # Of a message that is wrong, the whole says where.
    return found or json_pieces.take_apart(message, tensors)


def _take_apart_around(message: bytes, cuts: list[Cut], tensors: str) -> Apart | None:
    """None for what is wrong, and where a list is not the values of a tensor."""
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
    """The lists behind a key "data" that have more than two pieces and nothing in them but numbers: valid JSON, but for
    NaN and infinity. In a valid message such a list is a value, and no part of a string."""
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
    """To the last bracket before the next string, or the next object's begin or end."""
    end = start
    while end < len(message):
        places = [message.find(mark, end, end + piece_bytes) for mark in (b'"', b"{", b"}")]
        marks = [place for place in places if place >= 0]
        end = min(marks, default=end + piece_bytes)
        if marks:
            break
    return Cut(start, message.rfind(b"]", max(start, end - _SPACE_BYTES), end) + 1)


def _is_valid(message: bytes, cut: Cut, piece_bytes: int) -> bool:
    """Whether each piece is a list, of which as many are open at its begin as at the end of the piece before."""
    depth, start = 0, cut.start
    while start < cut.end:
        is_last = cut.end - start <= piece_bytes
        end = cut.end if is_last else message.rfind(b",", start, start + piece_bytes) + 1
        piece = message[start : end if is_last else end - 1]
        opened = depth
        depth += piece.count(b"[") - piece.count(b"]")
        # Behind a comma there is a value.
        if not piece or (opened and piece.lstrip().startswith(b"]")):
            return False
        if (depth != 0) if is_last else not 0 < depth <= _MAX_DEPTH:
            return False
        if has_numbers_beyond_json(piece):
            piece = b"".join(strictly(piece))
        try:
            _VALID.decode(b"[" * opened + piece + b"]" * depth)
        except (msgspec.MsgspecError, RecursionError):
            return False
        start = end
    return True
