import contextlib
import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.protocol.binary_codec import decode_request, decode_response, encode_request, encode_response
from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.json_codec import read_values, write_values
from serving.protocol.messages import InferInput, InferOutput, InferRequest, InferResponse, RequestedOutput
from serving.protocol.tensors import DATATYPES, NOT_IN_JSON, numpy_dtype


def tensors(datatype: str) -> st.SearchStrategy[np.ndarray]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=3)
    if datatype == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode)
        return shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=texts))
    if datatype == "BF16":
        return shapes.flatmap(lambda shape: hnp.arrays(np.uint16, shape)).map(lambda a: a.view(ml_dtypes.bfloat16))
    return shapes.flatmap(lambda shape: hnp.arrays(numpy_dtype(datatype), shape))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    if left.dtype.kind == "O":
        return left.shape == right.shape and left.tolist() == right.tolist()
    if left.dtype.kind == "f":
        return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@st.composite
def inputs(draw: st.DrawFn) -> tuple[InferInput, ...]:
    names = draw(
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=3, unique=True)
    )
    drawn = []
    for name in names:
        datatype = draw(st.sampled_from(DATATYPES))
        binary = datatype in NOT_IN_JSON or draw(st.booleans())
        drawn.append(InferInput(name, datatype, draw(tensors(datatype)), binary))
    return tuple(drawn)


@settings(max_examples=200)
@given(inputs(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.booleans())
def test_requests_round_trip_whatever_travels_binary_or_as_json(given_inputs, request_id, binary) -> None:
    request = InferRequest(given_inputs, (RequestedOutput("y", binary, 3),), request_id, {"priority": 2})
    again = decode_request(*encode_request(request))
    assert (again.id, again.outputs, again.parameters) == (request.id, request.outputs, request.parameters)
    for before, after in zip(request.inputs, again.inputs, strict=True):
        assert (before.name, before.datatype, before.binary) == (after.name, after.datatype, after.binary)
        assert same(before.data, after.data)


@settings(max_examples=100)
@given(inputs(), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_responses_round_trip(given_inputs, response_id) -> None:
    outputs = tuple(InferOutput(tensor.name, tensor.datatype, tensor.data) for tensor in given_inputs)
    response = InferResponse("m", "1", outputs, response_id)
    for binary in [True] if any(o.datatype in NOT_IN_JSON for o in outputs) else [True, False]:
        again = decode_response(*encode_response(response, binary=binary))
        assert (again.model_name, again.model_version, again.id) == ("m", "1", response_id)
        for before, after in zip(outputs, again.outputs, strict=True):
            assert same(before.data, after.data)


def test_nan_and_infinity_leave_bare_and_come_back() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 0.1], dtype=np.float32)
    text = write_values(array, "FP32", "y")
    assert text.startswith(b"[NaN, Infinity, -Infinity")
    assert same(np.array(json.loads(text), dtype=np.float32), array)
    assert same(read_values(text, "FP32", (4,), "x"), array)
    head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[NaN,1],[-Infinity,2]]}]}'
    assert decode_request(head).inputs[0].data[1].tolist() == [-np.inf, 2.0]


def test_numbers_are_written_as_short_as_their_type_allows() -> None:
    assert write_values(np.array([0.1], dtype=np.float32), "FP32", "y") == b"[0.1]"


def test_nested_and_flat_lists_mean_the_same() -> None:
    flat = read_values(b"[1,2,3,4]", "INT8", (2, 2), "x")
    assert same(read_values(b" [ [1,2],\n[3,4]]", "INT8", (2, 2), "x"), flat)


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "complaint"),
    [
        (b"[1,2,3]", "INT8", (2, 2), "x.data: 3 elements, but the shape needs 4"),
        (b"[[1,2],[3]]", "INT8", (2, 2), "x.data: 3 elements, but the shape needs 4"),
        (b"[" * 33 + b"]" * 33, "INT8", (0,), "x.data: data must be a list, flat or nested, at most 32 deep"),
        (b"[1,[2,[true]]]", "INT8", (3,), r"x.data\[1\]: expected int, got array"),
        (b"[[1,2],[true]]", "INT8", (3,), r"x.data\[2\]: expected int, got bool"),
        (b'[[1],["2,[3]"]]', "INT8", (3,), r"x.data\[1\]: expected int, got str"),
        (b"[[1,2],[3]]", "INT8", (10**9, 10**9), "3 elements, but the shape needs 1000000000000000000"),
        (b"1", "INT8", (1,), "x.data: data must be a list"),
        (b"[1,300]", "INT8", (2,), r"x.data\[1\]: expected int <= 127"),
        (b"[-1]", "UINT64", (1,), r"x.data\[0\]: expected int >= 0"),
        (b"[18446744073709551616]", "UINT64", (1,), "x.data"),
        (b"[1e999]", "FP32", (1,), "x.data"),
        (b"[1e999]", "FP64", (1,), "x.data"),
        (b"[NaN,1e999]", "FP64", (2,), "x.data: a number is out of range"),
        (b"[NaN]", "INT8", (1,), "x.data"),
        (b'[NaN,"a"]', "FP32", (2,), r"x.data\[1\]: expected float, got str"),
        (b"[NaN,null]", "FP32", (2,), r"x.data\[1\]: expected float, got null"),
        (b"[NaN," + b"1" * 5000 + b"]", "FP32", (2,), "x.data"),
        (b"[1" + b"0" * 400 + b"]", "FP32", (1,), "x.data"),
        (b'["\\ud800"]', "BYTES", (1,), "x.data: not valid"),
        (b'["\\ud800", NaN]', "BYTES", (2,), "x.data"),
        ("[1]".encode("utf-16-le"), "INT8", (1,), "x.data: not valid"),
        (b"[1.5]", "INT32", (1,), r"x.data\[0\]: expected int, got float"),
        (b'["a"]', "FP32", (1,), r"x.data\[0\]: expected float, got str"),
        (b"[1]", "BOOL", (1,), r"x.data\[0\]: expected bool, got int"),
        (b"[1]", "FP16", (1,), "FP16 cannot travel as JSON"),
        (b"[1]", "BF16", (1,), "BF16 cannot travel as JSON"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_path(data, datatype, shape, complaint) -> None:
    with pytest.raises(BadTensor, match=complaint):
        read_values(data, datatype, shape, "x")


@pytest.mark.parametrize("data", [b"[[1,2],[3,4]]", b"[[[[1]],[[2,3]]],4]", b"[1,[2],[[3,4]]]", b"[[],[1,2,3],[4]]"])
def test_only_the_number_of_elements_counts_however_they_are_nested(data: bytes) -> None:
    """Triton flattens nested lists too, and compares only the number of elements with the shape."""
    assert read_values(data, "INT32", (1, 4), "x").tolist() == [[1, 2, 3, 4]]
    assert read_values(data.replace(b"4", b"NaN"), "FP32", (4,), "x")[:3].tolist() == [1, 2, 3]


def test_what_is_too_large_for_fp32_becomes_infinity() -> None:
    assert read_values(b"[1e39, -1e39, 1]", "FP32", (3,), "x").tolist() == [np.inf, -np.inf, 1]
    assert read_values(b"[NaN, -1e39, Infinity]", "FP32", (3,), "x")[1:].tolist() == [-np.inf, np.inf]


def test_minus_zero_keeps_its_sign_where_it_has_one() -> None:
    assert np.signbit(read_values(b"[-0, -0.0]", "FP64", (2,), "x")).tolist() == [False, True]  # the first is a whole
    assert read_values(b"[-0]", "UINT8", (1,), "x").tolist() == [0]


@pytest.mark.parametrize("data", [b"[]", b"[[],[]]", b"[[[]]]", b" [ ] "])
@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "INT64", "BYTES"])
def test_lists_without_elements_are_tensors_without_elements(data: bytes, datatype: str) -> None:
    assert read_values(data, datatype, (1, 0), "x").shape == (1, 0)
    assert write_values(np.zeros((1, 0), numpy_dtype(datatype)), datatype, "y") == b"[]"


def test_the_largest_unsigned_number_survives_json() -> None:
    assert read_values(b"[18446744073709551615]", "UINT64", (1,), "x").tolist() == [2**64 - 1]


def test_bytes_that_are_no_text_cannot_leave_as_json() -> None:
    with pytest.raises(BadTensor, match="not valid UTF-8"):
        write_values(np.array([b"\xff"], dtype=object), "BYTES", "y")


def shared(byte_size: str, offset: str = "0", *, more: str = "") -> str:
    """The parameters of a tensor in shared memory."""
    where = f'"shared_memory_region":"r","shared_memory_byte_size":{byte_size},"shared_memory_offset":{offset}'
    return f"{{{where}{more}}}"


def head(tensor: str = "", *, then: str = "", **fields: str) -> bytes:
    """A request head with one input; `fields` replace its JSON, None-like "" leaves one out."""
    given = {"name": '"x"', "datatype": '"FP32"', "shape": "[1]", "data": "[1]", **fields}
    tensor = tensor or "{" + ",".join(f'"{key}":{value}' for key, value in given.items() if value) + "}"
    return f'{{"inputs":[{tensor}{then}]}}'.encode("latin-1")


ONE = '{"name":"x","datatype":"FP32","shape":[1],"data":[1]}'
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected object, got array"),
        (b"{}", "missing required field inputs"),
        (b'{"inputs":[]}', "inputs: at least one input"),
        (b'{"inputs":NaN}', "inputs: expected array, got float"),
        (head(shape=""), r"inputs\[0\]: object missing required field shape"),
        (head(shape='[1,"2"]'), r"inputs\[0\].shape\[1\]: expected int, got str"),
        (head(shape="[1,-2]"), r"inputs\[0\].shape\[1\]: dimensions must not be negative"),
        (head(shape="[" + "9" * 5000 + "]"), r"inputs\[0\].shape\[0\]: integer value out of range"),
        (head(datatype='"FP31"'), r"inputs\[0\].datatype: unknown datatype 'FP31'"),
        (head(data=""), r"inputs\[0\]: neither data nor binary_data_size"),
        (head(then="," + ONE), r"inputs\[1\]: input 'x' is given twice"),
        (head(parameters='{"binary_data_size":4}'), "both data and"),
        (head(data="", parameters='{"binary_data_size":-4}'), r"parameters.binary_data_size: must be a number"),
        (head(data="", parameters='{"binary_data_size":8}'), "8 bytes of data, but the shape and FP32 need 4"),
        (head(data="", parameters=shared("4", "-1")), "parameters.shared_memory_offset: must be a number of bytes"),
        (head(data="", parameters=shared('"4"')), "parameters.shared_memory_byte_size: must be a number of bytes"),
        (head(data="", parameters=shared("8")), "8 bytes of data, but the shape and FP32 need 4"),
        (head(parameters=shared("4")), "both data and shared_memory_region"),
        (
            head(data="", parameters=shared("4", more=',"binary_data_size":4')),
            "both shared_memory_region and binary_data",
        ),
        (head(data="", parameters='{"shared_memory_region":7}'), "shared_memory_region: must be the name of a region"),
        (
            head()[:-1]
            + b',"outputs":[{"name":"y","parameters":'
            + shared("4", more=',"classification":2').encode()
            + b"}]}",
            "both shared_memory_region and classification",
        ),
        (head()[:-1] + b',"outputs":[{"name":"y"},{"name":"y"}]}', r"outputs\[1\]: output 'y' is requested twice"),
        (head()[:-1] + b',"parameters":{"binary_data_output":1}}', "binary_data_output: must be true or false"),
        (b'{"inputs":[],"id":"","x":' + DEEP.encode(), "nested too deeply"),
        (b'{"x":' + b'{"a":' * 100_000, "nested too deeply"),
        (head(data="[NaN," + DEEP), "nested too deeply"),
        (head(data=DEEP), "nested too deeply"),
        (b'{"inputs":[{"name":"\\ud800', "not valid JSON"),
        (b'{"inputs":[{"name":"\xff"', "not valid JSON"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_heads_that_are_wrong_say_what_is_wrong(body: bytes, complaint: str) -> None:
    with pytest.raises(BadMessage, match=complaint):
        decode_request(body)


def test_a_head_longer_than_the_body_is_refused() -> None:
    with pytest.raises(BadMessage, match="500, but the body has 2 bytes"):
        decode_request(b"{}", 500)


def test_a_body_cut_off_or_too_long_is_refused() -> None:
    body, length = encode_request(InferRequest((InferInput("x", "FP32", np.zeros((1, 4), np.float32)),)))
    for damaged in (body[:-1], body + b"x"):
        with pytest.raises(BadMessage, match="add up to"):
            decode_request(damaged, length)


VALID = InferRequest(
    (
        InferInput("a", "FP32", np.ones((2, 3), np.float32)),
        InferInput("b", "BYTES", np.array([[b"x"], [b"yz"]], dtype=object)),
        InferInput("c", "INT64", np.ones((2, 1), np.int64), binary=False),
        InferInput("d", "BOOL", np.ones((2, 1), np.bool_)),
    ),
    (RequestedOutput("y", True),),
    "id",
    {"priority": 1, "timeout": 5},
)


@settings(max_examples=400)
@given(st.binary(max_size=200), st.integers(-5, 210) | st.none())
def test_arbitrary_bytes_raise_nothing_but_bad_message(body: bytes, header_length: int | None) -> None:
    for decode in (decode_request, decode_response):
        with contextlib.suppress(BadMessage):
            decode(body, header_length)


@settings(max_examples=600)
@given(st.data())
def test_mutated_messages_raise_nothing_but_bad_message(data: st.DataObject) -> None:
    body, length = encode_request(VALID)
    assert length is not None
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "insert", "token"]))
        if kind == "flip":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del mutated[at : at + data.draw(st.integers(1, 10))]
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=5))
        else:
            tokens = [
                b"NaN",
                b"-1",
                b"1e999",
                b"[[",
                b"null",
                b'"',
                b"99999999999999999999",
                b"{}",
                b"true",
                b"\\ud800",
            ]
            mutated[at:at] = data.draw(st.sampled_from(tokens))
        if not mutated:
            break
    with contextlib.suppress(BadMessage):
        decode_request(bytes(mutated), length + data.draw(st.sampled_from([0, 0, -1, 1, 10**6])))
