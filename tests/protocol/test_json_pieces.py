"""Large JSON that is decoded in pieces gives the same result as in one piece."""

import json
import re
import sys
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.protocol import json_pieces
from serving.protocol.binary_codec import decode_request, decode_response
from serving.protocol.errors import BadMessage
from serving.protocol.json_codec import LARGE_BYTES, PIECE_ELEMENTS, read_values, write_values
from serving.protocol.json_pieces import (
    MAX_REST_BYTES,
    MAX_TENSORS,
    PIECE_BYTES,
    has_numbers_beyond_json,
    leaves,
    pieces,
    strictly,
    take_apart,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(['",', '\\",[', "\\", "],[", '"', "\\\\"])
NUMBERS = st.floats(width=32) | st.integers(-9, 9)


@settings(max_examples=300)
@given(
    st.recursive(st.lists(TEXTS | NUMBERS, max_size=5), lambda inner: st.lists(inner | NUMBERS, max_size=4)),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_the_pieces_of_a_list_hold_its_elements(values, piece_bytes: int, ascii: bool, indent: int | None) -> None:
    text = json.dumps(values, ensure_ascii=ascii, indent=indent).encode()
    parts = [json.loads(bytes(piece)) for piece in pieces(text, piece_bytes)]
    assert repr(list(chain.from_iterable(leaves(part) for part in parts))) == repr(list(leaves(values)))


WORDS = st.sampled_from(
    [b"NaN", b"Infinity", b"-Infinity", b"N", b"Na", b"aN", b"Infinit", b"1", b",", b'"', b"[", b" "]
)


@given(st.lists(WORDS, max_size=40).map(b"".join), st.integers(1, 40))
def test_numbers_beyond_json_are_found_and_replaced_in_pieces_as_in_one(text: bytes, piece_bytes: int) -> None:
    assert has_numbers_beyond_json(text, piece_bytes) == (b"NaN" in text or b"Infinity" in text)
    assert b"".join(strictly(text, piece_bytes)) == text.replace(b"NaN", b"1e1").replace(b"Infinity", b"1e000001")


@pytest.mark.parametrize("word", [b"NaN", b"Infinity"])
def test_a_number_beyond_json_is_found_where_two_pieces_meet(word: bytes) -> None:
    for before in range(PIECE_BYTES - 9, PIECE_BYTES + 2):
        text = b" " * before + word + b" " * PIECE_BYTES
        assert has_numbers_beyond_json(text)
        assert len(b"".join(strictly(text)).strip()) == len(word)
        assert max(map(len, strictly(text))) < PIECE_BYTES + 9


def test_pieces_are_as_long_as_they_should_be_where_values_are_short() -> None:
    text = json.dumps([[1.5] * 100] * 5000).encode()
    sizes = [len(piece) for piece in pieces(text)]
    assert len(text) > 10 * PIECE_BYTES
    assert max(sizes) <= PIECE_BYTES + 10


class Watched:
    """A regular expression that records the most bytes it was asked to search at once."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.most_bytes = 0

    def match(self, text: bytes, start: int = 0, end: int = sys.maxsize) -> re.Match[bytes] | None:
        self.most_bytes = max(self.most_bytes, min(end, len(text)) - start)
        return self.pattern.match(text, start, end)

    def sub(self, by: bytes, text: bytes) -> bytes:
        self.most_bytes = max(self.most_bytes, len(text))
        return self.pattern.sub(by, text)


@pytest.mark.parametrize("word", ["word ", '"', "\\", ",", "[", "\u4e2d"])
def test_no_search_in_a_long_text_covers_more_than_a_piece(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = {name: Watched(getattr(json_pieces, name)) for name in ("_STRINGS", "_CLOSED", "_UP_TO_COMMA", "_INSIDE")}
    for name, pattern in watched.items():
        monkeypatch.setattr(json_pieces, name, pattern)
    values = ["first", word * PIECE_BYTES, "last"]
    parts = [json.loads(bytes(piece)) for piece in pieces(json.dumps(values).encode())]
    assert list(chain.from_iterable(parts)) == values
    assert 0 < max(pattern.most_bytes for pattern in watched.values()) <= PIECE_BYTES + 1


def test_a_list_of_many_pieces_is_one_tensor() -> None:
    count = 100_000
    numbers = np.arange(count, dtype=np.float32)
    for nested in (numbers.tolist(), numbers.reshape(100, 10, -1).tolist()):
        for text in (json.dumps(nested), json.dumps([*nested[:-1], nested[-1]]).replace("99999.0", "NaN")):
            read = read_values(text.encode(), "FP32", (1, count), "x")
            assert read.shape == (1, count)
            assert np.array_equal(read[0, :-1], numbers[:-1])
    texts = [f'a",[{index}\\' for index in range(count)]
    read = read_values(json.dumps(texts).encode(), "BYTES", (count, 1), "x")
    assert read[:, 0].tolist() == [text.encode() for text in texts]


def test_a_value_of_the_wrong_kind_far_behind_is_told_of() -> None:
    text = json.dumps([1.5] * 50_000 + ["a"]).encode()
    with pytest.raises(BadMessage, match=r"x.data: behind element \d+, data\[\d+\]: expected float, got str"):
        read_values(text, "FP32", (50_001,), "x")


@pytest.mark.parametrize("kind", ["FP32", "FP64", "INT16", "BYTES", "nan"])
def test_long_lists_are_written_as_short_ones_are(kind: str) -> None:
    count = 3 * PIECE_ELEMENTS + 1
    array = np.arange(count).astype(np.float32 if kind == "nan" else {"BYTES": "S"}.get(kind, "f8"))
    if kind == "nan":
        array[count // 2] = np.nan
    datatype = "FP32" if kind == "nan" else kind
    if kind in ("FP32", "INT16"):
        array = array.astype({"FP32": np.float32, "INT16": np.int16}[kind])
    if kind == "BYTES":
        array = array.astype(object)
    written = json.loads(write_values(array, datatype, "y"))
    wanted = [element.decode() if isinstance(element, bytes) else element for element in array.tolist()]
    assert repr(written) == repr(wanted)


def large(more: str = "", *, data: str = "[1.5,NaN]", then: str = "") -> bytes:
    """A request above the size from which messages are taken apart."""
    x = f'{{"name":"x","datatype":"FP32","shape":[1,2],"data":{data}{more}}}'
    return f'{{"id":"7","inputs":[{x}]{then}}}{" " * LARGE_BYTES}'.encode()


@pytest.mark.parametrize("data", ["[1.5,2]", "[1.5,NaN]", "[[[1.5]],[Infinity]]", "[ 1.5 , -Infinity ]"])
def test_large_requests_say_what_small_ones_say(data: str) -> None:
    then = ',"parameters":{"NaN":"Infinity"},"outputs":[{"name":"NaN"}]'
    small, big = (decode_request(body) for body in (large(data=data, then=then).rstrip(), large(data=data, then=then)))
    assert big.id == "7"
    assert (big.outputs, big.parameters) == (small.outputs, small.parameters)
    assert big.parameters == {"NaN": "Infinity"}
    assert np.array_equal(big.inputs[0].data, small.inputs[0].data, equal_nan=True)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (large(data="[1 2]"), "not valid JSON"),
        (large(data="[1NaN,2]"), "not valid JSON"),
        (large(data="[1,NaN2]"), "not valid JSON"),
        (large(data="[1.5,NaN,]"), "not valid JSON"),
        (large(then=',"id":NaN'), "id"),
        (large(then=',"id":"\\ud800"'), "not valid"),
        (large(then=',"x":"\\ud800"').rstrip(), "not valid"),
        (large(more=',"data":"\\ud800"').rstrip(), "not valid"),
        (large().replace(b'"FP32"', b'"BYTES"').replace(b"1.5", b'"\\ud800"'), "not valid"),
        (b"\xef\xbb\xbf" + large(), "not valid JSON"),
        (large().replace(b'"x"', b'"\xff"'), "not valid JSON"),
        (b"[" * 10 + large(), "not valid JSON|expected object"),
        (b"[NaN]" + b" " * LARGE_BYTES, "expected object"),
        (b"NaN", "expected object"),
        (b" " * (LARGE_BYTES + 1), "not valid JSON"),
        (b"{}" + b" " * LARGE_BYTES, "inputs"),
        (b'{"inputs":[7,NaN]}', r"inputs\[0\]: expected object, got int"),
        (b'{"inputs":{"a":NaN}}', "inputs: expected array, got object"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_large_messages_that_are_wrong_are_bad_messages(body: bytes, complaint: str) -> None:
    with pytest.raises(BadMessage, match=complaint):
        decode_request(body)


def test_what_is_no_values_is_bounded_in_a_large_message() -> None:
    many = b'{"inputs":[' + b",".join([b'{"name":"x","data":[1]}'] * (MAX_TENSORS + 1)) + b"]}" + b" " * LARGE_BYTES
    with pytest.raises(BadMessage, match=f"inputs: more than {MAX_TENSORS} entries"):
        decode_request(many)
    for field in (
        ',"outputs":[' + ",".join(['{"name":"y"}'] * 50_000) + "]",
        ',"parameters":{' + ",".join(f'"{n}":1' for n in range(50_000)) + "}",
        ',"x":[' + "1," * 200_000 + "1]",
    ):
        with pytest.raises(BadMessage, match=f"bytes besides the data of its tensors, at most {MAX_REST_BYTES}"):
            decode_request(large(then=field))
    with pytest.raises(BadMessage, match="bytes besides the data"):
        decode_request(large(more=',"shape":[' + "1," * 200_000 + "1]"))


def test_data_is_taken_out_without_a_copy() -> None:
    message = large()
    rest, data = take_apart(message, "inputs")
    assert data[0] is not None
    assert data[0].obj is message
    assert bytes(data[0]) == b"[1.5,NaN]"
    assert b"null" in rest


def test_a_large_answer_is_read_like_a_small_one() -> None:
    body = b'{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,NaN]}]}'
    for answer in (body, body + b" " * LARGE_BYTES):
        assert decode_response(answer).outputs[0].data[0] == 1
