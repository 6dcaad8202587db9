"""Messages whose long lists are cut out first give the same result as without cutting."""

import json

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.protocol import json_pieces
from serving.protocol.binary_codec import decode_request
from serving.protocol.errors import BadMessage
from serving.protocol.json_hollow import long_lists, take_apart
from serving.protocol.json_pieces import PIECE_BYTES

NUMBERS = st.floats(width=16) | st.integers(-9, 99) | st.sampled_from([None, True])
NESTED = st.recursive(st.lists(NUMBERS, max_size=9), lambda inner: st.lists(inner | NUMBERS, max_size=5))
STRINGS = st.sampled_from(["data", '"data":[1,2,3,4,5,6,7,8,9]', '\\"data":[1,2,3,4,5,6]', "\\", "]", "{", "x"])
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": STRINGS,
        "data": NESTED | st.lists(STRINGS, max_size=5) | STRINGS | NUMBERS,
        "parameters": st.dictionaries(STRINGS, NESTED, max_size=2),
    },
)
MESSAGES = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3)}, optional={"id": STRINGS, "data": NESTED, "outputs": st.lists(TENSORS)}
)
SPLINTERS = st.sampled_from(
    [b"", b",", b"]", b"[", b"],[", b'"', b"}", b"{", b"1", b"NaN", b'"data":[1,2,3,4,5,6,7]', b"\\", b" ", b"null"]
)


def taken(message: bytes, take) -> object:
    try:
        rest, data = take(message)
    except (BadMessage, msgspec.MsgspecError, RecursionError) as error:
        return type(error), str(error)
    return rest, [values and bytes(values) for values in data]


@settings(max_examples=300)
@given(
    MESSAGES,
    st.sampled_from([None, 1]),
    st.integers(4, 30),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), SPLINTERS), max_size=2),
)
def test_a_message_is_taken_apart_the_same_whether_lists_are_cut_out_or_not(
    message: dict, indent: int | None, piece_bytes: int, damages: list[tuple[float, int, bytes]]
) -> None:
    text = json.dumps(message, indent=indent).encode()
    for where, removed, splinter in damages:
        place = int(where * len(text))
        text = text[:place] + splinter + text[place + removed :]
    wanted = taken(text, lambda text: json_pieces.take_apart(text, "inputs"))
    assert taken(text, lambda text: take_apart(text, "inputs", piece_bytes)) == wanted


def listed(values: str, piece_bytes: int = 8) -> list[str]:
    text = b'{"inputs":[{"data":' + values.encode() + b',"name":"x"}]}'
    return [text[start:end].decode() for start, end in long_lists(text, piece_bytes)]


def test_long_lists_of_numbers_alone_are_cut_out() -> None:
    for values in ("[1,2,3,4,5,6,7,8,9,10]", "[[1,2,3],[4,5,6],[7,8]]", "[1,NaN,-Infinity,2,3,4,5]"):
        assert listed(values, 10) == listed(values + " \n", 10) == [values]
        assert listed(values, 13) == []
    for values in (
        "[1,2,3],[4,5,6],[7,8,9]",
        "[1,2,3,4,5,6],[7,8,9,10]",
        "[1,2,3,4,5,6,7,8,9,]",
        "[1,2,3,4,5,6,,7,8,9]",
        "[1,2,3,4,5,6,7,8,9]]",
        "[[1,2,3,4,5,6,7,8,9]",
        '[1,2,3,4,5,6,7,8,"9"]',
        "[1,2,3,4,5,6 7,8,9,0]",
        "[12345678901234567890]",
        "[" * 90 + "1,1" + "]" * 90,
    ):
        assert listed(values) == []


def test_of_a_large_message_views_are_taken_and_read() -> None:
    values = np.arange(PIECE_BYTES, dtype=np.float32)
    text = json.dumps(
        {"inputs": [{"name": n, "datatype": "FP32", "shape": [1, PIECE_BYTES], "data": values.tolist()} for n in "xy"]}
    ).encode()
    rest, data = take_apart(text, "inputs")
    assert [values and values.obj is text for values in data] == [True, True]
    assert len(rest) < 200
    for given_input in decode_request(text).inputs:
        assert np.array_equal(given_input.data[0], values)
