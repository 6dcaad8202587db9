"""Requests made from a model's own description."""

from loadtest.payloads import inputs_of, make_payloads
from serving.protocol.binary_codec import decode_request
from serving.protocol.messages import InferRequest, TensorDescription

INPUTS = (
    TensorDescription("x", "FP32", (-1, 4)),
    TensorDescription("ids", "INT64", (-1, -1)),
    TensorDescription("mask", "BOOL", (-1, 2)),
    TensorDescription("words", "BYTES", (-1, 1)),
)


def decoded(body: bytes, headers: dict[str, str]) -> InferRequest:
    return decode_request(body, int(headers["inference-header-content-length"]))


def test_the_declared_names_and_types_are_sent_with_the_asked_rows_and_length() -> None:
    (payload,) = make_payloads(INPUTS, rows=3, length=7, count=1)
    request = decoded(payload.body, dict(payload.headers))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in request.inputs] == [
        ("x", "FP32", (3, 4)),
        ("ids", "INT64", (3, 7)),
        ("mask", "BOOL", (3, 2)),
        ("words", "BYTES", (3, 1)),
    ]
    assert request.parameters["binary_data_output"] is True


def test_equal_seeds_give_equal_bytes_and_requests_differ_from_each_other() -> None:
    first, again, other = (make_payloads(INPUTS, count=4, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({payload.body for payload in first}) == 4


def test_the_inputs_are_read_from_a_models_metadata() -> None:
    metadata = {"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}], "outputs": []}
    assert inputs_of(metadata) == [TensorDescription("x", "FP32", (-1, 4))]
