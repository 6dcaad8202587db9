"""Large bodies of generate are read in pieces, with the result of reading them whole."""

import json
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.http import generate
from serving.api.http.generate import read_request
from serving.api.served import ServedModel
from serving.protocol.errors import BadMessage
from serving.protocol.messages import TensorDescription
from serving.protocol.tensors import DATATYPES
from serving.testing.backend import EchoBackend

VALUES = st.floats() | st.integers(-300, 300) | st.sampled_from(["a", "é", None, True, {}, 2**40])
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=5))
LISTS = st.lists(st.integers(0, 9) | st.floats(width=32) | st.lists(st.integers(0, 9), max_size=3), max_size=9)


def model_of(datatype: str, name: str = "x") -> ServedModel:
    inputs = (TensorDescription(name, datatype, (-1, -1)), TensorDescription("y", "FP64", (-1, 1), optional=True))
    return ServedModel(name="m", inputs=inputs, outputs=inputs, backend=EchoBackend())


def outcome(body: bytes, model: ServedModel, large_bytes: int) -> object:
    with patch.object(generate, "LARGE_BYTES", large_bytes):
        try:
            request = read_request(model, body)
        except BadMessage as error:
            return error.path.partition("[")[0]
    values = {name: (value.dtype, value.shape, value.tolist()) for name, value in request.payload.items()}
    return repr((values, replace(request, payload={})))


@settings(max_examples=500)
@given(
    st.sampled_from(DATATYPES),
    st.fixed_dictionaries({}, optional={"x": LISTS | NESTED, "y": VALUES, "id": st.text(max_size=3), "n": VALUES}),
)
def test_a_body_is_read_the_same_whole_and_in_pieces(datatype: str, fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode()
    model = model_of(datatype)
    assert outcome(body, model, 0) == outcome(body, model, 1 << 30)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
@pytest.mark.parametrize("depth", [1, 2, 40])
def test_a_large_list_is_read_however_deep_it_is_nested(datatype: str, depth: int) -> None:
    values = [str(value) if datatype == "BYTES" else value for value in range(100_000)]
    body = b'{"x":' + b"[" * (depth - 1) + json.dumps(values).encode() + b"]" * (depth - 1) + b',"n":3}'
    request = read_request(model_of(datatype), body)
    read = request.payload["x"]
    assert read.shape == (1, 100_000)
    assert read[0].tolist() == [value.encode() if isinstance(value, str) else value for value in values]


def test_a_large_text_is_one_element() -> None:
    text = 'a"é' * 100_000
    for name in ("x", 'odd"name'):
        read = read_request(model_of("BYTES", name), json.dumps({name: text}).encode()).payload[name]
        assert read.tolist() == [[text.encode()]]


def test_a_wrong_element_of_a_large_list_is_refused_with_its_path() -> None:
    values = [*np.arange(100_000.0).tolist(), "no"]
    with pytest.raises(BadMessage, match=r"x\.data.*expected float, got str"):
        read_request(model_of("FP32"), json.dumps({"x": values}).encode())
