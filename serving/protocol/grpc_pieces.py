"""Cuts encoded ModelInfer messages into parts without protobuf's classes. `json_pieces.py` does the same for JSON and
explains why. Only the lengths of fields are read, and the contents of a few."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serving.protocol.errors import BadMessage
from serving.protocol.json_pieces import MAX_REST_BYTES, PIECE_BYTES

MAX_FIELDS = 1024  # of a request: inputs, outputs, parameters and what is in them
# A field's first byte: its number times 8, plus 2 for "a length follows".
ID, PARAMETER, INPUT, OUTPUT, RAW_INPUT = b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a"
_NAMES = (b"\x0a", b"\x12", ID)  # given once; of several the last counts
_LISTS = (PARAMETER, INPUT, OUTPUT, RAW_INPUT)
_CONTENTS = b"\x2a"  # of an input
# Of contents: fields of numbers, which stand behind each other without their own tags; of fixed size, or of any.
_FIXED, _VARIABLE = frozenset((0x32, 0x3A)), frozenset((0x0A, 0x12, 0x1A, 0x22, 0x2A))


class Field(NamedTuple):
    """An encoded field: offsets of its tag (`start`), its content (`content`) and its end in bytes."""

    tag: bytes
    start: int
    content: int
    end: int


class Apart(NamedTuple):
    """A message without its contents. `rest`: the head with empty contents. `contents`: the encoded contents of each
    input, in as many parts as the client sent."""

    rest: bytes
    contents: list[list[bytes]]


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Returns the number at `position` and the offset of its end. Raises IndexError beyond the end of the message and
    for more bytes than a length can have."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value, position
        shift += 7
        if shift > 35:
            raise IndexError("longer than a length can be")


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def field(tag: bytes, content: bytes) -> bytes:
    """Returns an encoded field: tag, length, content."""
    return tag + varint(len(content)) + content


def fields(message: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yields the fields of a message. Raises IndexError for a field beyond the end or of an unsupported wire type."""
    end = len(message) if end is None else end
    while start < end:
        _, content = read_varint(message, start)
        tag = message[start:content]
        kind = tag[0] & 7
        if kind == 2:
            length, content = read_varint(message, content)
            stop = content + length
        elif kind == 0:
            stop = content
            while message[stop] > 127:
                stop += 1
            stop += 1
        elif kind in (1, 5):
            stop = content + (8 if kind == 1 else 4)
        else:
            raise IndexError("a group, or nothing")
        if stop > end:
            raise IndexError("beyond the end")
        yield Field(tag, start, content, stop)
        start = stop


def reads_long(message: bytes, head_bytes: int) -> bool:
    """Returns whether parsing the request takes long: without raw contents it has more than `head_bytes`, or its fields
    are out of order, so that all are copied. A malformed request is refused at once and does not take long."""
    last, rest_bytes, has_id = b"", 0, False
    try:
        for count, one in enumerate(fields(message)):
            if count > MAX_FIELDS:
                return False
            if one.tag != RAW_INPUT:
                rest_bytes += one.end - one.start
            is_known = one.tag in _LISTS or one.tag in _NAMES
            if rest_bytes > head_bytes or not is_known or one.tag < last or (one.tag == ID and has_id):
                return True
            last, has_id = one.tag, has_id or one.tag == ID
    except IndexError:
        return False
    return False


def too_many_fields() -> BadMessage:
    return BadMessage(f"more than {MAX_FIELDS} inputs, outputs, raw_input_contents and parameters")


def in_order(message: bytes) -> bytes:
    """Returns the request with its fields in the order of their numbers and without unknown fields. Raises BadMessage
    for more than MAX_FIELDS, IndexError for malformed bytes."""
    names: dict[bytes, bytes] = {}
    lists: dict[bytes, list[bytes]] = {tag: [] for tag in _LISTS}
    for count, one in enumerate(fields(message)):
        if count >= MAX_FIELDS:
            raise too_many_fields()
        whole = message[one.start : one.end]
        if one.tag in lists:
            lists[one.tag].append(whole)
        elif one.tag in _NAMES:
            names[one.tag] = whole
    return b"".join([names.get(tag, b"") for tag in _NAMES] + [one for tag in _LISTS for one in lists[tag]])


def take_apart(head: bytes) -> Apart:
    """Cuts the typed contents out of a head. Raises BadMessage for more than MAX_FIELDS, for more than MAX_REST_BYTES
    besides contents, and for malformed bytes."""
    parts: list[bytes] = []
    contents: list[list[bytes]] = []
    count = rest_bytes = 0
    try:
        for one in fields(head):
            whole = head[one.start : one.end]
            if one.tag == INPUT:
                inner: list[bytes] = []
                own: list[bytes] = []
                for part in fields(head, one.content, one.end):
                    count += 1
                    if count > MAX_FIELDS:
                        raise too_many_fields()
                    if part.tag == _CONTENTS:
                        own.append(head[part.content : part.end])
                        inner.append(field(_CONTENTS, b""))
                    else:
                        inner.append(head[part.start : part.end])
                contents.append(own)
                whole = field(INPUT, b"".join(inner))
            count += 1
            rest_bytes += len(whole)
            if count > MAX_FIELDS:
                raise too_many_fields()
            if rest_bytes > MAX_REST_BYTES:
                raise BadMessage(
                    f"more than {MAX_REST_BYTES} bytes besides the contents of its inputs in a large message"
                )
            parts.append(whole)
    except IndexError:
        raise BadMessage("not a ModelInferRequest") from None
    return Apart(b"".join(parts), contents)


def pieces(contents: Iterable[bytes], piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yields encoded InferTensorContents of about `piece_bytes` each, which together hold the same values. Raises
    BadMessage for malformed bytes."""
    for whole in contents:
        start = 0
        while start < len(whole):
            try:
                stop = _whole_fields(whole, start, piece_bytes)
                if stop - start > piece_bytes and whole[start] in _FIXED | _VARIABLE:
                    yield from _parts_of_field(whole, start, stop, piece_bytes)
                else:
                    yield whole[start:stop]
            except IndexError:
                raise BadMessage("not a ModelInferRequest") from None
            start = stop


def _whole_fields(message: bytes, start: int, piece_bytes: int) -> int:
    """Returns the offset where the whole fields end that fit into `piece_bytes`, at least one field. Optimized for many
    small fields."""
    position, limit, end = start, start + piece_bytes, len(message)
    stop = start
    while position < end and position < limit:
        tag = message[position]
        if tag & 7 == 2 and tag < 128:
            length = message[position + 1]
            position += 2
            if length > 127:
                length, position = read_varint(message, position - 1)
            position += length
        else:
            position = next(fields(message, position)).end
        if position > limit and stop > start:
            return stop
        stop = position
    if stop > end:
        raise IndexError("beyond the end")
    return stop


def _parts_of_field(message: bytes, start: int, stop: int, piece_bytes: int) -> Iterator[bytes]:
    """Cuts one packed field of many numbers into several fields of about `piece_bytes` each."""
    tag = message[start : start + 1]
    _, position = read_varint(message, start + 1)
    while position < stop:
        end = min(position + piece_bytes // 8 * 8, stop)
        if tag[0] in _VARIABLE:
            while end < stop and message[end - 1] > 127:
                end += 1
        yield field(tag, message[position:end])
        position = end
