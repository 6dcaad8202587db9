"""ModelInfer messages: the codec and tritonclient read each other's messages, and malformed ones are refused."""

import contextlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import InferInput, InferRequestedOutput, InferResult, service_pb2
from tritonclient.grpc._utils import _get_inference_request

from serving.protocol.errors import BadMessage, BadOutput
from serving.protocol.grpc_codec import GrpcLayout, GrpcReplyWriter, error_in_stream, in_stream, split
from serving.protocol.reply import OutputFormat, ReplyFormat
from serving.protocol.spans import Span
from serving.protocol.tensors import DATATYPES, numpy_dtype
from tests.protocol.test_codecs import same, tensors


def request_of(*inputs: InferInput, outputs=None, **more) -> service_pb2.ModelInferRequest:
    facts = {
        "model_version": "", "request_id": "", "sequence_id": 0, "sequence_start": False, "sequence_end": False,
        "priority": 0, "timeout": None, "parameters": None,
    }  # fmt: skip
    return _get_inference_request(inputs=list(inputs), model_name="m", outputs=outputs, **(facts | more))


def infer_input(name: str, array: np.ndarray, datatype: str) -> InferInput:
    return InferInput(name, list(array.shape), datatype).set_data_from_numpy(array)


def read(message: bytes) -> tuple[GrpcLayout, dict[str, np.ndarray]]:
    found = split(message)
    layout = GrpcLayout(found.head)
    return layout, layout.read(found)


def typed(datatype: str, shape: list[int], **contents) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=shape, contents=contents)
    return request


FP32 = infer_input("x", np.arange(3, dtype=np.float32).reshape(1, 3), "FP32")


@given(st.data())
def test_what_tritonclient_sends_comes_back_from_what_it_reads(data) -> None:
    names = data.draw(st.lists(st.sampled_from(DATATYPES), min_size=1, max_size=4))
    arrays = {f"t{index}": data.draw(tensors(datatype)) for index, datatype in enumerate(names)}
    inputs = [infer_input(name, array, names[int(name[1:])]) for name, array in arrays.items()]
    layout, values = read(request_of(*inputs, request_id=data.draw(st.text(max_size=3))).SerializeToString())
    assert layout.model_name == "m"
    form = ReplyFormat([OutputFormat(name, names[int(name[1:])], True) for name in arrays])
    answer = service_pb2.ModelInferResponse.FromString(GrpcReplyWriter("m", "1").write(form, values, "7"))
    result = InferResult(answer)
    assert (answer.id, answer.model_name, answer.model_version) == ("7", "m", "1")
    for name, array in arrays.items():
        assert same(result.as_numpy(name), array)


def test_ids_stay_out_of_the_head_so_that_equal_requests_have_equal_heads() -> None:
    first, second = (split(request_of(FP32, request_id=id).SerializeToString()) for id in ("1", "é2"))
    assert (first.id, second.id) == ("1", "é2")
    assert first.head == second.head == split(request_of(FP32).SerializeToString()).head


def test_numbers_are_views_into_the_message_and_not_copies() -> None:
    found = split(request_of(FP32).SerializeToString())
    x = GrpcLayout(found.head).read(found)["x"]
    assert not x.flags.owndata
    assert np.shares_memory(x, np.frombuffer(found.message, np.uint8))


def test_fields_may_come_in_any_order_and_unknown_ones_are_passed_over() -> None:
    request = request_of(FP32, request_id="7")
    raw = service_pb2.ModelInferRequest(raw_input_contents=request.raw_input_contents).SerializeToString()
    request.ClearField("raw_input_contents")
    unknown = b"\xa2\x06\x01!"  # field 100, one byte
    later_id = service_pb2.ModelInferRequest(id="8").SerializeToString()
    found = split(raw + unknown + request.SerializeToString() + later_id)
    assert found.id == "8"
    assert GrpcLayout(found.head).read(found)["x"].tolist() == [[0.0, 1.0, 2.0]]


def test_parameters_keep_their_kind() -> None:
    request = request_of(FP32, priority=3, timeout=1500, parameters={"text": "t", "flag": True, "ratio": 0.5})
    layout, _ = read(request.SerializeToString())
    assert layout.parameters == {
        "priority": 3, "timeout": 1500, "text": "t", "flag": True, "ratio": 0.5, "binary_data_output": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("datatype", "contents", "values"),
    [
        ("BOOL", {"bool_contents": [True, False]}, [True, False]),
        ("INT8", {"int_contents": [-128, 127]}, [-128, 127]),
        ("INT16", {"int_contents": [-5, 5]}, [-5, 5]),
        ("INT32", {"int_contents": [-5, 5]}, [-5, 5]),
        ("INT64", {"int64_contents": [-(2**63), 5]}, [-(2**63), 5]),
        ("UINT8", {"uint_contents": [0, 255]}, [0, 255]),
        ("UINT16", {"uint_contents": [0, 65535]}, [0, 65535]),
        ("UINT32", {"uint_contents": [0, 2**32 - 1]}, [0, 2**32 - 1]),
        ("UINT64", {"uint64_contents": [0, 2**64 - 1]}, [0, 2**64 - 1]),
        ("FP32", {"fp32_contents": [0.5, -1]}, [0.5, -1]),
        ("FP64", {"fp64_contents": [0.1, -1]}, [0.1, -1]),
        ("BYTES", {"bytes_contents": [b"\xff", b""]}, [b"\xff", b""]),
    ],
)
def test_typed_contents_are_read(datatype: str, contents: dict, values: list) -> None:
    layout, tensors = read(typed(datatype, [1, 2], **contents).SerializeToString())
    assert tensors["x"].tolist() == [values]
    assert tensors["x"].dtype == numpy_dtype(datatype)
    assert not layout.is_reusable


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (service_pb2.ModelInferRequest(model_name="m"), "inputs: at least one input is needed"),
        (typed("FP31", [1]), "inputs[0].datatype: unknown datatype 'FP31'"),
        (typed("FP32", [-1]), "inputs[0].shape[0]: dimensions must not be negative"),
        (typed("FP32", [2**62, 2**62]), "inputs[0].shape: the number of elements is too large"),
        (typed("INT8", [1], int_contents=[300]), "inputs[0].contents.data: a number does not fit into INT8"),
        (typed("FP32", [2], fp32_contents=[1]), "inputs[0].contents.fp32_contents: 1 elements, but the shape needs 2"),
        (typed("FP32", [1], int_contents=[1]), "inputs[0].contents.int_contents: FP32 belongs into fp32_contents"),
        (typed("FP16", [1], fp32_contents=[1]), "inputs[0].contents: FP16 has no typed form"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(request_, complaint: str) -> None:
    with pytest.raises(BadMessage) as caught:
        read(request_.SerializeToString())
    assert str(caught.value).startswith(complaint)


def test_raw_contents_must_fit_the_inputs() -> None:
    request = request_of(FP32)
    request.raw_input_contents[0] = b"123"
    with pytest.raises(BadMessage, match=r"^inputs\[0\]: 3 bytes of data, but the shape and FP32 need 12"):
        read(request.SerializeToString())
    request.raw_input_contents.append(b"123")
    with pytest.raises(BadMessage, match=r"^raw_input_contents: 2 entries for 1 inputs"):
        read(request.SerializeToString())
    mixed = typed("FP32", [1], fp32_contents=[1])
    mixed.raw_input_contents.append(b"1234")
    with pytest.raises(BadMessage, match="must not be mixed"):
        read(mixed.SerializeToString())
    del request.raw_input_contents[:]
    with pytest.raises(BadMessage, match=r"^inputs\[0\]: neither contents nor raw_input_contents is given"):
        read(request.SerializeToString())


def test_an_input_in_shared_memory_has_no_contents_and_the_others_keep_their_order() -> None:
    shared = InferInput("s", [1], "FP32")
    shared.set_shared_memory("region", 4, 12)
    found = split(request_of(shared, FP32).SerializeToString())
    layout = GrpcLayout(found.head)
    assert [(tensor.name, tensor.span) for tensor in layout.shared] == [("s", Span("region", 12, 4))]
    assert list(layout.read(found)) == ["x"]
    request = request_of(shared, FP32)
    request.raw_input_contents.append(b"1234")
    with pytest.raises(BadMessage, match="2 entries for 1 inputs that are not in shared memory"):
        read(request.SerializeToString())
    request = request_of(shared)
    request.inputs[0].contents.fp32_contents.append(1)
    with pytest.raises(BadMessage, match=r"inputs\[0\]: both contents and shared_memory_region"):
        read(request.SerializeToString())


def test_bad_classification_is_refused() -> None:
    request = request_of(FP32, outputs=[InferRequestedOutput("x", class_count=2)])
    assert GrpcLayout(split(request.SerializeToString()).head).outputs[0].classes == 2
    request.outputs[0].parameters["classification"].int64_param = -1
    with pytest.raises(BadMessage, match=r"^outputs\[0\]\.parameters\.classification"):
        read(request.SerializeToString())


@given(st.binary(max_size=200))
def test_random_bytes_are_a_bad_message_or_a_request_but_never_a_crash(message: bytes) -> None:
    with contextlib.suppress(BadMessage):
        read(message)


@given(st.data())
def test_a_damaged_request_is_a_bad_message_or_a_request_but_never_a_crash(data) -> None:
    message = bytearray(request_of(FP32, infer_input("b", np.array([b"ab"], object), "BYTES")).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadMessage):
        read(bytes(message[: data.draw(st.integers(0, len(message)))]))


def test_an_output_that_is_not_what_was_declared_is_no_answer() -> None:
    form = ReplyFormat([OutputFormat("y", "FP32", True)])
    writer = GrpcReplyWriter("m", "1")
    with pytest.raises(BadOutput, match="no output 'y'"):
        writer.write(form, {})
    with pytest.raises(BadOutput, match="returned int8 for output 'y'"):
        writer.write(form, {"y": np.zeros((1, 1), np.int8)})
    strided = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2]
    for _ in range(2):  # the second time from the kept head
        answer = service_pb2.ModelInferResponse.FromString(writer.write(form, {"y": strided}))
        assert InferResult(answer).as_numpy("y").tolist() == strided.tolist()


def test_bfloat16_answers_carry_their_bits() -> None:
    values = {"y": np.array([[1.5]], ml_dtypes.bfloat16)}
    answer = GrpcReplyWriter("m", "1").write(ReplyFormat([OutputFormat("y", "BF16", True)]), values)
    assert service_pb2.ModelInferResponse.FromString(answer).raw_output_contents == [b"\xc0\x3f"]


def test_messages_of_a_stream_say_whether_they_are_the_last() -> None:
    answer = service_pb2.ModelInferResponse(model_name="m", id="7").SerializeToString()
    for is_final in (True, False):
        inside = service_pb2.ModelStreamInferResponse.FromString(in_stream(answer, is_final=is_final))
        assert inside.infer_response.parameters["triton_final_response"].bool_param is is_final
        assert (inside.error_message, inside.infer_response.id) == ("", "7")
    failed = service_pb2.ModelStreamInferResponse.FromString(error_in_stream("no", "m", "7"))
    assert (failed.error_message, failed.infer_response.id) == ("no", "7")
