"""Fuzzes gRPC on both doors with messages of odd values, damaged messages and random bytes. Every call must be answered
in time and never with an internal error."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.reference import accumulate_spec, echo_spec, linear_spec, words_spec
from models.spec import TensorSpec
from serving.api.faults import INTERNAL
from serving.protocol.pb import SERVICE, message, pool
from tests.house import House, house

PATIENCE_S = 10.0
OUR_FAULT = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
BOUNDED = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
METHODS = pool().FindServiceByName(SERVICE).methods_by_name

_TEXT = TensorSpec(name="text", datatype="BYTES", shape=(-1, 1))
SPECS = (linear_spec(), echo_spec(inputs=(_TEXT,), outputs=(_TEXT,)), accumulate_spec(), words_spec())
WORDS = (
    "", "linear", "echo", "accumulate", "words", "x", "y", "text", "sum", "in", "1", "FP32", "INT32", "BYTES", "BF16",
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "classification", "binary_data_size",
    "shared_memory_region", "triton_enable_empty_final_response", "é\0",
)  # fmt: skip
EDGES = (0, 1, -1, 2, 4, 16, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))


@pytest.fixture(scope="module", params=["fast", "plain"])
def served(request) -> Iterator[House]:
    with house(*SPECS, grpc_door=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def channel(served: House) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc) as open_channel:
        yield open_channel


def _value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == field.CPPTYPE_MESSAGE:
        return _message(field.message_type, depth - 1)
    if kind == field.CPPTYPE_STRING:
        return st.sampled_from(WORDS) if field.type == field.TYPE_STRING else st.binary(max_size=80)
    if kind == field.CPPTYPE_BOOL:
        return st.booleans()
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return st.floats(width=32)
    bits = 31 if kind in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32, field.CPPTYPE_ENUM) else 63
    lowest = 0 if kind in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -(2**bits)
    return st.sampled_from([edge for edge in EDGES if lowest <= edge < 2**bits])


@st.composite
def _message(draw: Any, descriptor: Any, depth: int) -> Any:
    """Draws a message of this type whose fields are absent or have unusual values."""
    made = message(descriptor.full_name.removeprefix("inference."))()
    for field in descriptor.fields:
        if (depth <= 0 and field.cpp_type == field.CPPTYPE_MESSAGE) or not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields
            for name in draw(st.lists(_value(key, depth), max_size=3)):
                if value.message_type is None:
                    getattr(made, field.name)[name] = draw(_value(value, depth))
                else:
                    getattr(made, field.name)[name].CopyFrom(draw(_value(value, depth)))
        elif field.is_repeated:
            getattr(made, field.name).extend(draw(st.lists(_value(field, depth), max_size=3)))
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(draw(_value(field, depth)))
        else:
            setattr(made, field.name, draw(_value(field, depth)))
    return made


def _damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Draws a message that is cut off, has a byte changed, or has bytes inserted."""
    place = st.integers(0, max(0, len(whole) - 1))
    return st.one_of(
        place.map(lambda at: whole[:at]),
        st.builds(lambda at, byte: whole[:at] + bytes([byte]) + whole[at + 1 :], place, st.integers(0, 255)),
        st.builds(lambda at, more: whole[:at] + more + whole[at:], place, st.binary(max_size=12)),
    )


@st.composite
def almost_right(draw: Any) -> bytes:
    """Draws a request that is valid for one of the models except for one or two fields."""
    model, name, datatype, width = draw(
        st.sampled_from([("linear", "x", "FP32", 16), ("echo", "text", "BYTES", 1), ("accumulate", "x", "INT32", 1)])
    )
    rows = draw(st.sampled_from([1, 2, 1, 3, 1, 0, -1, 4096, 2**40]))
    request = message("ModelInferRequest")(model_name=model)
    request.inputs.add(name=name, datatype=datatype, shape=[rows, width])
    element = b"\x02\0\0\0ab" if datatype == "BYTES" else b"\0\0\x80\x3f"
    request.raw_input_contents.append(element * (width * max(0, min(rows, 64))))
    if draw(st.booleans()):
        request.parameters["sequence_id"].int64_param = draw(st.sampled_from([0, 1, 2, -1]))
        request.parameters["sequence_start"].bool_param = draw(st.booleans())
    if draw(st.integers(0, 3)) == 3:
        request.MergeFrom(draw(_message(request.DESCRIPTOR, 2)))
    whole: bytes = request.SerializeToString()
    return draw(st.just(whole) | _damaged(whole))


def anything_for(method: str) -> st.SearchStrategy[bytes]:
    kind = _message(METHODS[method].input_type, 4).map(lambda made: made.SerializeToString())
    strategy = kind | kind.flatmap(_damaged) | st.binary(max_size=200)
    return almost_right() | strategy if method.endswith("Infer") else strategy


def check_well(served: House) -> None:
    """Checks that no request is left in the engines and that the server still answers."""
    for engine in served.engines.values():
        served.until(engine.ledger.is_empty)
        engine.ledger.check()
        assert engine.is_ready()
    with triton.InferenceServerClient(served.grpc) as client:
        x = triton.InferInput("x", [1, 16], "FP32").set_data_from_numpy(np.ones((1, 16), np.float32))
        assert client.infer("linear", [x], client_timeout=PATIENCE_S).as_numpy("y").shape == (1, 4)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Returns the status of a failed call. Fails the test for an internal error and for a call without an answer."""
    code: grpc.StatusCode = error.code()
    assert code not in OUR_FAULT, error
    assert error.details() != "Deadline Exceeded", "it hangs"
    return code


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"ModelStreamInfer"}))
def test_no_message_is_answered_with_an_internal_error(served: House, channel: grpc.Channel, method: str) -> None:
    call = channel.unary_unary(f"/{SERVICE}/{method}")
    codes: Counter[grpc.StatusCode] = Counter()

    @BOUNDED
    @given(anything_for(method))
    def send(raw: bytes) -> None:
        try:
            call(raw, timeout=PATIENCE_S)
            codes[grpc.StatusCode.OK] += 1
        except grpc.RpcError as error:
            codes[code_of(error)] += 1

    send()
    if method == "ModelInfer":
        assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= codes.keys(), codes
    check_well(served)


def test_no_stream_of_messages_is_answered_with_an_internal_error(served: House, channel: grpc.Channel) -> None:
    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    answers = 0

    @BOUNDED
    @given(st.lists(anything_for("ModelInfer"), max_size=6), st.booleans())
    def send(raws: list[bytes], strict: bool) -> None:
        nonlocal answers
        metadata = [("triton_grpc_error", "true")] if strict else []
        try:
            for answer in call(iter(raws), timeout=PATIENCE_S, metadata=metadata):
                answers += 1
                assert INTERNAL.text.encode() not in answer
        except grpc.RpcError as error:
            code_of(error)

    send()
    assert answers > 50
    check_well(served)
