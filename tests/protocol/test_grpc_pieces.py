"""Large gRPC requests that are decoded in pieces give the same result as in one piece."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from serving.protocol import grpc_pieces
from serving.protocol.errors import BadMessage
from serving.protocol.grpc_codec import GrpcLayout, split
from serving.protocol.grpc_pieces import MAX_FIELDS, field, in_order, reads_long, take_apart
from serving.protocol.json_codec import LARGE_BYTES
from serving.protocol.json_pieces import MAX_REST_BYTES, PIECE_BYTES

Contents = service_pb2.InferTensorContents
INT64 = st.integers(-(2**63), 2**63 - 1)
CONTENTS = {
    "bool_contents": st.booleans(),
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": INT64,
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32, allow_nan=False),
    "fp64_contents": st.floats(allow_nan=False),
    "bytes_contents": st.binary(max_size=300),
}


@given(st.data(), st.sampled_from(list(CONTENTS)), st.integers(1, 200))
def test_the_pieces_of_contents_hold_their_values(data, name: str, piece_bytes: int) -> None:
    values = data.draw(st.lists(CONTENTS[name], max_size=60))
    parts = [Contents(**{name: part}).SerializeToString() for part in (values[:20], values[20:])]
    cut = grpc_pieces.pieces([parts[0] + parts[1], parts[0]], max(8, piece_bytes))
    read = [value for piece in cut for value in getattr(Contents.FromString(piece), name)]
    assert read == values + values[:20]


def request(datatype: str, count: int, **contents: object) -> bytes:
    message = service_pb2.ModelInferRequest(model_name="m", id="7")
    message.inputs.add(name="x", datatype=datatype, shape=[1, count], contents=contents)
    message.outputs.add(name="y")
    message.parameters["priority"].int64_param = 3
    return message.SerializeToString()


COUNT = 5 * PIECE_BYTES // 4


@pytest.mark.parametrize(
    ("datatype", "name", "values"),
    [
        ("FP32", "fp32_contents", np.arange(COUNT, dtype=np.float32)),
        ("FP64", "fp64_contents", np.arange(COUNT, dtype=np.float64) / 3),
        ("INT64", "int64_contents", np.arange(COUNT) * -(7**18)),
        ("UINT8", "uint_contents", np.arange(COUNT) % 256),
        ("BOOL", "bool_contents", np.arange(COUNT) % 3 == 0),
        ("BYTES", "bytes_contents", np.array([str(n).encode() for n in range(COUNT)], dtype=object)),
    ],
)
def test_large_contents_are_read(datatype: str, name: str, values: np.ndarray) -> None:
    found = split(request(datatype, COUNT, **{name: values.tolist()}))
    assert len(found.head) > LARGE_BYTES
    layout = GrpcLayout(found.head)
    assert not layout.is_reusable
    assert (found.id, layout.parameters["priority"], layout.outputs[0].name) == ("7", 3, "y")
    assert layout.read(found)["x"].tolist() == [values.tolist()]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (request("FP32", COUNT + 1, fp32_contents=[1.0] * COUNT), r"inputs\[0\].contents.fp32_contents: \d+ elements"),
        (request("FP32", COUNT, fp64_contents=[1.0] * COUNT), r"contents.fp64_contents: FP32 belongs into fp32"),
        (request("INT8", COUNT, int_contents=[1] * (COUNT - 1) + [300]), "contents"),
        (request("FP16", COUNT, fp32_contents=[1.0] * COUNT), "FP16 has no typed form"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_large_contents_that_are_wrong_are_named(message: bytes, complaint: str) -> None:
    found = split(message)
    with pytest.raises(BadMessage, match=complaint):
        GrpcLayout(found.head).read(found)


def many(**fields: list) -> bytes:
    return service_pb2.ModelInferRequest(model_name="m", **fields).SerializeToString()


TINY = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
OUTPUT = service_pb2.ModelInferRequest.InferRequestedOutputTensor(name="y")


@pytest.mark.parametrize(
    "message",
    [
        many(inputs=[TINY] * 5000),
        many(inputs=[TINY], outputs=[OUTPUT] * 5000),
        many(inputs=[TINY], raw_input_contents=[b""] * 5000),
        many(inputs=[TINY], parameters={str(n): {"int64_param": n} for n in range(5000)}),
        many(raw_input_contents=[b""]) + many(inputs=[TINY] * 5000),
        many(inputs=[TINY]) + many(inputs=[TINY] * 5000),
    ],
    ids=["inputs", "outputs", "raw contents", "parameters", "raw contents first", "twice"],
)
def test_more_fields_than_a_model_can_have_are_refused_before_the_rest_is_read(message: bytes) -> None:
    # What follows is no message at all, which nobody notices.
    with pytest.raises(BadMessage, match=f"more than {MAX_FIELDS} inputs"):
        split(message + b"\xff" * 100)


def test_what_is_no_contents_is_bounded_in_a_large_request() -> None:
    inner = {str(n): {"int64_param": n} for n in range(10_000)}
    odd = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1], parameters=inner)
    with pytest.raises(BadMessage, match=f"more than {MAX_FIELDS}"):
        GrpcLayout(many(inputs=[odd]))
    wide = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1] * MAX_REST_BYTES)
    for message in (many(inputs=[wide]), many(inputs=[TINY], parameters={"x": {"string_param": "x" * MAX_REST_BYTES}})):
        with pytest.raises(BadMessage, match=f"more than {MAX_REST_BYTES} bytes besides the contents"):
            GrpcLayout(message)


def part(**fields: object) -> bytes:
    return service_pb2.ModelInferRequest(**fields).SerializeToString()


RAW = part(raw_input_contents=[bytes(10_000)])


@pytest.mark.parametrize(
    ("message", "long"),
    [
        (part(inputs=[TINY]) + RAW, False),
        (part(id="5", inputs=[TINY, TINY], outputs=[OUTPUT]) + RAW + RAW, False),
        (part(parameters={"x": {"string_param": "x" * 999}}, inputs=[TINY]) + RAW, True),
        (request("FP32", 250, fp32_contents=[1.0] * 250), True),
        (RAW + part(inputs=[TINY]), True),
        (part(inputs=[TINY]) + part(id="5") + RAW, True),
        (part(id="5") + part(id="7") + RAW, True),
        (part(inputs=[TINY]) + b"\x98\x06\xff\x01" + RAW, True),
        ((part(inputs=[TINY]) + RAW)[:-1], False),
        (b"\xff" * 10_000, False),
        (part(inputs=[TINY], raw_input_contents=[b""] * 5000) + b"\xff", False),
    ],
    ids=[
        "views",
        "more views",
        "long head",
        "contents",
        "raw first",
        "id behind",
        "two ids",
        "unknown",
        "cut",
        "none",
        "many",
    ],
)
def test_what_reading_a_request_copies_is_known_from_its_fields(message: bytes, long: bool) -> None:
    assert reads_long(message, 999) == long


@given(st.lists(st.sampled_from([part(id="5"), part(inputs=[TINY]), part(outputs=[OUTPUT]), RAW]), max_size=6))
def test_a_request_that_is_not_read_long_has_a_short_head_and_is_in_order(parts: list[bytes]) -> None:
    message = many() + b"".join(parts)
    if not reads_long(message, 999):
        assert len(split(message).head) < 999
        assert in_order(message) == message


def test_fields_are_put_in_order_as_protobuf_would() -> None:
    parts = [
        many(inputs=[TINY]), many(outputs=[OUTPUT]), many(raw_input_contents=[b"1"]), many(id="5"), many(id="7"),
        field(b"\xa2\x06", b"unknown"), b"\x98\x06\xff\x01", b"\x9d\x06abcd", b"\x99\x06abcdefgh", many(inputs=[TINY]),
    ]  # fmt: skip
    ordered = in_order(b"".join(parts))
    wanted = service_pb2.ModelInferRequest.FromString(b"".join(parts))
    wanted.DiscardUnknownFields()
    assert ordered == wanted.SerializeToString(deterministic=True)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_raise_nothing_but_bad_message(data: bytes) -> None:
    for attempt in (lambda: take_apart(data), lambda: list(grpc_pieces.pieces([data], 8)), lambda: split(data)):
        try:
            attempt()
        except BadMessage:
            continue
