"""The choice between event loop and thread for reading and writing messages: no large body may block the event loop."""

import http.client
import json
import threading
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.grpc import service_pb2

from serving.api.beside import LONG_ANSWER_BYTES, LONG_BYTES, LONG_ELEMENTS
from serving.protocol.messages import TensorDescription
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import grpc_serving

BESIDE = "messages"


class Noted(tuple):
    """The inputs of a model; they record in which thread a request is checked."""

    threads: list[str]

    def __iter__(self) -> Iterator[TensorDescription]:
        self.threads.append(threading.current_thread().name.partition("_")[0])
        return super().__iter__()


def noting(datatype: str, **more: object):
    served = model("m", ("x", datatype, (-1, -1)), backend=EchoBackend(), **more)
    object.__setattr__(served, "inputs", Noted(served.inputs))
    served.inputs.threads = []
    return served


def bytes_on_the_loop(served, sent: int) -> int:
    """Returns how many of the `sent` bytes of the latest request were read on the event loop: all or 0."""
    assert served.inputs.threads
    return 0 if set(served.inputs.threads) == {BESIDE} else sent


COUNT = LONG_BYTES // 2
HEAD = '{"inputs":[{"name":"x","datatype":"%s","shape":[1,%d],%s}]}'


def as_json(values: str, datatype: str = "FP32", count: int = COUNT) -> tuple[bytes, int | None]:
    return (HEAD % (datatype, count, f'"data":{values}')).encode(), None


def raw(datatype: str, data: bytes, count: int = COUNT) -> tuple[bytes, int]:
    head = (HEAD % (datatype, count, f'"parameters":{{"binary_data_size":{len(data)}}}')).encode()
    return head + data, len(head)


LARGE = {
    "JSON": ("FP32", as_json(json.dumps([1.5] * COUNT))),
    "JSON, nested": ("FP32", as_json(json.dumps([[1.5]] * COUNT))),
    "JSON with a NaN": ("FP32", as_json(json.dumps([float("nan")] + [1.5] * (COUNT - 1)))),
    "JSON texts": ("BYTES", as_json(json.dumps(["ab"] * COUNT), "BYTES")),
    "raw BYTES": ("BYTES", raw("BYTES", b"\1\0\0\0a" * COUNT)),
    "JSON that is not the model's": ("FP32", as_json(json.dumps([1] * COUNT), "INT32")),
    "JSON cut off": ("FP32", (as_json(json.dumps([1.5] * COUNT))[0][:-5], None)),
}


def post(server, body: bytes, head_bytes: int | None, **headers: str) -> int:
    if head_bytes is not None:
        headers["Inference-Header-Content-Length"] = str(head_bytes)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/v2/models/m/infer", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("path", ["short", "httptools"])
def test_large_bodies_are_read_beside_the_loop(serve, kind: str, path: str) -> None:
    datatype, (body, head_bytes) = LARGE[kind]
    served = noting(datatype)
    server = serve([served], http=path)
    served.inputs.threads.clear()
    assert len(body) > LONG_BYTES
    assert post(server, body, head_bytes) == (400 if "not" in kind or "cut" in kind else 200)
    if "cut" not in kind:  # which is no message to hold against anything
        assert bytes_on_the_loop(served, len(body)) / len(body) == 0


@pytest.mark.parametrize("path", ["short", "httptools"])
def test_small_bodies_and_views_of_large_ones_stay_on_the_loop(serve, path: str) -> None:
    served = noting("FP32")
    server = serve([served], http=path)
    for body, head_bytes in (as_json("[1,2]", count=2), raw("FP32", bytes(4 * COUNT)), raw("FP32", bytes(8), 2)):
        served.inputs.threads.clear()
        assert post(server, body, head_bytes) == 200
        assert bytes_on_the_loop(served, len(body)) == len(body)


def request(datatype: str, **contents: object) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype=datatype, shape=[1, COUNT], contents=contents)
    return message


def raw_request(datatype: str, data: bytes) -> service_pb2.ModelInferRequest:
    message = request(datatype)
    message.inputs[0].ClearField("contents")
    message.raw_input_contents.append(data)
    return message


@pytest.mark.parametrize("door", ["plain", "fast"])
@pytest.mark.parametrize("in_stream", [False, True])
def test_large_messages_are_read_beside_the_loop(door: str, in_stream: bool) -> None:
    numbers = request("FP32", fp32_contents=[1.5] * COUNT)
    texts = request("BYTES", bytes_contents=[b"ab"] * COUNT)
    raw_texts = raw_request("BYTES", b"\1\0\0\0a" * COUNT)
    views = raw_request("FP32", bytes(4 * COUNT))
    for message, beside in ((numbers, True), (texts, True), (raw_texts, True), (views, False)):
        served = noting(message.inputs[0].datatype)
        with (
            grpc_serving([served], door=door) as running,
            triton_grpc.InferenceServerClient(running.address) as client,
        ):
            served.inputs.threads.clear()
            if in_stream:
                (answer,) = client._client_stub.ModelStreamInfer(iter([message]))
                assert not answer.error_message
            else:
                _, call = client._client_stub.ModelInfer.with_call(message, metadata=[("x-request-id", "it")])
                assert ("x-request-id", "it") in [tuple(one) for one in call.trailing_metadata()]
            size = message.ByteSize()
            assert bytes_on_the_loop(served, size) / size == (0 if beside else 1)


class NotedText(str):
    """A text that records in which thread it is written."""

    threads: ClassVar[list[str]] = []

    def encode(self, *args: object) -> bytes:
        self.threads.append(threading.current_thread().name.partition("_")[0])
        return super().encode()


class NotedLabels(dict):
    def __init__(self) -> None:
        self.threads: list[str] = []

    def get(self, name: str, default: object = None) -> object:
        self.threads.append(threading.current_thread().name.partition("_")[0])
        return default


@pytest.mark.parametrize("path", ["short", "httptools", "fast", "plain"])
@pytest.mark.parametrize("elements", [4, LONG_ELEMENTS + 1])
def test_many_elements_are_written_beside_the_loop(serve, path: str, elements: int) -> None:
    texts = np.array([[NotedText("a")] * elements], dtype=object)
    scores = np.zeros((1, elements), np.float32)
    labels = NotedLabels()
    answer = {"text": texts, "score": scores}
    served = model(
        "m", ("x", "FP32", (-1, -1)), backend=EchoBackend(lambda _: answer), labels=labels,
        outputs=(TensorDescription("text", "BYTES", (-1, -1)), TensorDescription("score", "FP32", (-1, -1))),
    )  # fmt: skip
    NotedText.threads = []
    if path in ("fast", "plain"):
        x = triton_grpc.InferInput("x", [1, 1], "FP32").set_data_from_numpy(np.zeros((1, 1), np.float32))
        outputs = [triton_grpc.InferRequestedOutput("text"), triton_grpc.InferRequestedOutput("score", class_count=2)]
        with (
            grpc_serving([served], door=path) as running,
            triton_grpc.InferenceServerClient(running.address) as client,
        ):
            assert client.infer("m", [x], outputs=outputs).as_numpy("text").shape == (1, elements)
    else:
        server = serve([served], http=path)
        classes = '{"name":"score","parameters":{"classification":2}}'
        body = as_json("[1]", count=1)[0][:-1] + f',"outputs":[{{"name":"text"}},{classes}]}}'.encode()
        assert post(server, body, None) == 200
    assert len(NotedText.threads) == elements
    assert {thread == BESIDE for thread in NotedText.threads + labels.threads} == {elements > LONG_ELEMENTS}


class NotedAnswer(dict):
    """Outputs that record in which thread they were last accessed."""

    thread = ""

    def __getitem__(self, name: str) -> object:
        self.thread = threading.current_thread().name.partition("_")[0]
        return super().__getitem__(name)


@pytest.mark.parametrize("path", ["short", "httptools", "fast", "plain"])
@pytest.mark.parametrize("more_bytes", [0, 4])
def test_very_large_raw_answers_are_copied_beside_the_loop(serve, path: str, more_bytes: int) -> None:
    count = (LONG_ANSWER_BYTES + more_bytes) // 4
    answer = NotedAnswer(x=np.arange(count, dtype=np.float32).reshape(1, count))
    served = model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend(lambda _: answer))
    if path in ("fast", "plain"):
        x = triton_grpc.InferInput("x", [1, 1], "FP32").set_data_from_numpy(np.zeros((1, 1), np.float32))
        with (
            grpc_serving([served], door=path) as running,
            triton_grpc.InferenceServerClient(running.address) as client,
        ):
            assert np.array_equal(client.infer("m", [x]).as_numpy("x"), answer["x"])
            answer.thread = ""
            client.infer("m", [x])
    else:
        server = serve([served], http=path)
        body = as_json("[1]", count=1)[0][:-1] + b',"parameters":{"binary_data_output":true}}'
        assert post(server, body, None) == 200
    assert (answer.thread == BESIDE) == (more_bytes > 0)


def test_a_client_that_leaves_while_its_body_is_read_harms_nobody(serve) -> None:
    served = noting("FP32")
    server = serve([served])
    body, _ = LARGE["JSON with a NaN"][1]
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("POST", "/v2/models/m/infer", body)
        connection.close()
    assert post(server, body, None) == 200
