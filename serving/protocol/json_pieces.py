"""Takes large JSON apart: separates the values of tensors from the rest of a message, and cuts long lists into short
ones.

One call of a decoder holds the interpreter's lock until it returns, even in another thread. Long values are therefore
decoded in pieces, so that the event loop is not blocked.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import takewhile
from typing import Any, NamedTuple

import msgspec
import numpy as np

from serving.protocol.errors import BadMessage
from serving.protocol.joining import joined

PIECE_BYTES = 1 << 17
MAX_TENSORS = 1024  # tensors of one message that is taken apart
MAX_REST_BYTES = 1 << 18  # bytes of a message without the values of its tensors
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_CLOSED = re.compile(rb'(?:[^"]++|' + _STRING + rb")*+", re.DOTALL)
_UP_TO_COMMA = re.compile(rb'(?:(?:[^",]++|' + _STRING + rb")*+,)*+", re.DOTALL)
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_QUOTATION_MARK = ord('"')
# Strict JSON numbers of the same length, so that offsets do not change.
_STRICT = ((b"NaN", b"1e1"), (b"Infinity", b"1e000001"))
_IN_WORDS = re.compile(rb"[NaInfity]*+")


class _Values(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw()


# A list of structs would be built in full before its length is checked; this stops at the first one too many.
_Tensors = msgspec.defstruct(
    "_Tensors",
    [(f"t{index}", _Values | msgspec.UnsetType, msgspec.UNSET) for index in range(MAX_TENSORS)],
    array_like=True,
    forbid_unknown_fields=True,
)
_TENSORS = msgspec.json.Decoder(_Tensors)


class Apart(NamedTuple):
    """A message without its values. `rest`: the message with `null` in place of each tensor's `data`. `data`: the raw
    JSON of each tensor's values in order, None for a tensor without."""

    rest: bytes
    data: list[memoryview | None]


def has_numbers_beyond_json(text: bytes, piece_bytes: int = PIECE_BYTES) -> bool:
    """Returns whether the text may contain NaN or Infinity as Python writes them, which are not strict JSON."""
    return any(
        text.find(word, start, start + piece_bytes + len(word) - 1) >= 0
        for word, _ in _STRICT
        for start in range(0, len(text), piece_bytes)
    )


def strictly(text: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yields the text in pieces, with strict JSON numbers of the same length in place of NaN and Infinity."""
    start = 0
    while start < len(text):
        # Does not cut inside a word. A longer run of a word's letters is no number.
        end = _IN_WORDS.match(text, start + piece_bytes, start + piece_bytes + PIECE_BYTES)
        piece = text[start : end.end() if end else len(text)]
        for loose, strict in _STRICT:
            piece = piece.replace(loose, strict)
        start += len(piece)
        yield piece


def strict(text: bytes) -> bytes:
    """Returns the text as `strictly` yields it, or the text itself if it has no NaN and no Infinity."""
    return joined(strictly(text)) if has_numbers_beyond_json(text) else text


def take_apart(message: bytes, tensors: str) -> Apart:
    """Separates the values of tensors from the rest of a message. Numbers may be NaN or Infinity.

    tensors: the name of the field that lists the tensors.

    Raises BadMessage for more than MAX_TENSORS or MAX_REST_BYTES, msgspec's errors and RecursionError for an invalid
    message."""
    text = strict(message)
    listed = getattr(_outer(tensors).decode(text), tensors)
    try:
        found = _TENSORS.decode(listed)
    except msgspec.ValidationError as error:
        if "at most length" in str(error):
            raise BadMessage(f"more than {MAX_TENSORS} entries", path=tensors) from None
        complaint, _, path = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{complaint} - at `$.{tensors}{path or '`'}") from None
    listed_values = takewhile(lambda values: values is not msgspec.UNSET, msgspec.structs.astuple(found))
    places = list(places_in(text, (values.data for values in listed_values)))
    view = memoryview(message)
    rest = without(message, filter(None, places), "data of its tensors")
    return Apart(rest, [place and view[place] for place in places])


def places_in(text: bytes, values: Iterable[msgspec.Raw]) -> Iterator[slice | None]:
    """Yields where each value lies in the text from which it was decoded; None for an empty value."""
    # msgspec does not give the offset of a raw value, but the value is a view of the text's memory.
    beginning = address(text)
    for value in values:
        start = address(value) - beginning if value else 0
        yield slice(start, start + memoryview(value).nbytes) if value else None


def without(message: bytes, places: Iterable[slice], values: str) -> bytes:
    """Returns the message with `null` in place of the values at these places, which ascend.

    values: what they are, for the error. Raises BadMessage for more than MAX_REST_BYTES besides them."""
    view = memoryview(message)
    parts: list[bytes | memoryview] = []
    offset = 0
    for place in places:
        parts += (view[offset : place.start], b"null")
        offset = place.stop
    parts.append(view[offset:])
    rest_bytes = sum(map(len, parts))
    if rest_bytes > MAX_REST_BYTES:
        raise BadMessage(
            f"{rest_bytes} bytes besides the {values}, at most {MAX_REST_BYTES} are taken in a large message"
        )
    return b"".join(parts)


@cache
def _outer(tensors: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("_Outer", [(tensors, msgspec.Raw)]))


def address(buffer: bytes | memoryview | msgspec.Raw) -> int:
    start: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return start


def pieces(array: bytes | memoryview, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes | memoryview]:
    """Yields a JSON array as several arrays of about `piece_bytes`, with its values in order and equally nested. The
    array has to be valid except for NaN and Infinity."""
    if len(array) <= piece_bytes:
        yield array
        return
    view = memoryview(array)
    depth = start = 0
    while start < len(view):
        end, risen = _up_to_comma(view, start, piece_bytes)
        piece = bytes(view[start : end - 1 if end < len(view) else end])
        yield b"[" * depth + piece + b"]" * (depth + risen)
        depth += risen
        start = end


def _up_to_comma(view: memoryview, start: int, piece_bytes: int) -> tuple[int, int]:
    """Returns where a piece that begins outside of strings ends, and how many lists are open there beyond those before.

    It ends behind a comma outside of strings, about `piece_bytes` from `start`, or with the array. Each search covers
    at most `piece_bytes`, since a regular expression holds the interpreter's lock too."""
    risen = 0
    while start < len(view):
        part = bytes(view[start : start + piece_bytes])
        is_last = start + piece_bytes >= len(view)
        last_comma = _UP_TO_COMMA.match(part)
        if last_comma and last_comma.end() and not is_last:
            return start + last_comma.end(), risen + _opened(part[: last_comma.end()])
        closed = _CLOSED.match(part)
        size = closed.end() if closed else 0
        risen += _opened(part[:size])
        start += size
        if size < len(part):  # a string begins that does not end in this part
            start = _end_of_string(view, start, piece_bytes)
    return start, risen


def _opened(text: bytes) -> int:
    """Returns how many more lists begin than end in a text that holds only whole strings."""
    outside = _STRINGS.sub(b"", text) if b'"' in text else text
    return outside.count(b"[") - outside.count(b"]")


def _end_of_string(view: memoryview, start: int, piece_bytes: int) -> int:
    """Returns the place behind the quotation mark that ends the string which begins at `start`."""
    start += 1
    while start < len(view):
        inside = _INSIDE.match(view, start, start + piece_bytes + 1)
        assert inside is not None  # it matches nothing too
        start = inside.end()
        if start < len(view) and view[start] == _QUOTATION_MARK:
            return start + 1
    return start


def leaves(values: list[Any]) -> Iterator[Any]:
    """Yields the elements of nested lists in order. Does not recurse, since the client decides the depth."""
    stack = [iter(values)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()
