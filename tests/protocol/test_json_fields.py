"""Fields that are taken out of a JSON object leave the rest as it was, and mean what they mean in the whole."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.errors import BadMessage
from serving.protocol.json_fields import take_fields
from serving.protocol.json_pieces import MAX_REST_BYTES

KEYS = st.sampled_from(["x", "y", "id", "é", '"x":[1]', "\\", "NaN"])
NUMBERS = st.floats() | st.integers(-9, 99) | st.sampled_from([None, True])
VALUES = st.recursive(NUMBERS | KEYS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner))


@given(st.dictionaries(KEYS, VALUES), st.booleans(), st.sampled_from([None, 1]))
def test_rest_and_values_are_those_of_the_whole(fields: dict[str, object], ascii: bool, indent: int | None) -> None:
    taken = take_fields(json.dumps(fields, ensure_ascii=ascii, indent=indent).encode(), ("x", "é"))
    assert taken is not None
    values = {name: json.loads(bytes(value)) for name, value in taken.values.items()}
    assert set(values) == set(fields) & {"x", "é"}
    assert repr(json.loads(taken.rest)) == repr({name: None if name in values else fields[name] for name in fields})
    assert repr(values) == repr({name: fields[name] for name in values})


def test_a_field_given_twice_has_its_last_value_and_an_escaped_name_is_found() -> None:
    taken = take_fields(b'{"x":1,"y":3,"\\u0078":[2]}', ("x",))
    assert taken is not None
    assert bytes(taken.values["x"]) == b"[2]"
    assert json.loads(taken.rest) == {"x": None, "y": 3}


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"x":1', "not valid JSON"),
        (b'{"x":1}}', "not valid JSON"),
        (b'{"x":nan}', "not valid JSON"),
        (b'{"x":' + b"[" * 100_000, "nested too deeply"),
        (b'{"x":[' + b"1," * MAX_REST_BYTES + b'1],"y":"' + b"a" * MAX_REST_BYTES + b'"}', "besides the values"),
    ],
)
def test_a_message_that_is_no_such_object_is_refused(message: bytes, complaint: str) -> None:
    with pytest.raises(BadMessage, match=complaint):
        take_fields(message, ("x",))


def test_names_that_the_decoder_cannot_look_for_are_left_to_the_caller() -> None:
    assert take_fields(b"{}", ('a"b',)) is None
