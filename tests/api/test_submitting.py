"""Each request is read once and submitted in one place, over whichever wire it comes."""

import ast
import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import serving.api
from serving.api.admission.gate import Peer
from serving.api.admission.room import NO_ROOM, Room
from serving.api.shared_memory.regions import Regions
from serving.protocol.layout import TensorLayout
from serving.protocol.messages import Tensor
from serving.protocol.pb import decode, encode
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import service_of
from tests.api.test_witness import generating

SUBMITTER = "dispatch.py"


class CountedRegions(Regions):
    """Shared memory that counts how often each input is read."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.reads: Counter[str] = Counter()

    def read(self, tensor: TensorLayout, tenant: str) -> Tensor:
        assert tensor.span is not None
        self.reads[tensor.span.region] += 1
        return np.ones(tensor.shape, np.float32)


class StreamCall:
    """A call without metadata and without a deadline."""

    def time_left_ns(self) -> None:
        return None

    def metadata(self, name: str) -> str:
        return ""

    @property
    def peer(self) -> Peer:
        return Peer(self.metadata)

    def request_id(self) -> str:
        return "stream"


def shared_request(name: str, region: str) -> bytes:
    shared = {"shared_memory_region": {"string_param": region}, "shared_memory_byte_size": {"int64_param": 8}}
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": shared}
    return encode("ModelInferRequest", {"model_name": name, "id": region, "inputs": [x]})


def request(name: str, columns: int) -> bytes:
    x = {"name": "x", "datatype": "FP32", "shape": [1, columns], "contents": {"fp32_contents": [1.0] * columns}}
    return encode("ModelInferRequest", {"model_name": name, "inputs": [x]})


def stream(models: list, *sent: bytes) -> list:
    """Returns the answers to a stream of these messages."""
    answers: list = []

    async def send(answer: bytes) -> None:
        answers.append(decode("ModelStreamInferResponse", answer))

    async def messages() -> AsyncIterator[bytes]:
        for message in sent:
            yield message

    asyncio.run(service_of(models).stream(messages(), send, StreamCall()))
    return answers


def test_a_message_of_a_stream_is_read_once_whatever_kind_of_model_it_is_for() -> None:
    regions = CountedRegions()
    _, generator = generating(regions=regions)
    echo = model("echo", ("x", "FP32", (-1, 2)), backend=EchoBackend(), regions=regions)
    answers = stream([generator, echo], shared_request("m", "to generate"), shared_request("echo", "to compute"))
    assert [answer.error_message for answer in answers] == [""] * 3
    assert regions.reads == {"to generate": 1, "to compute": 1}


def test_a_message_that_no_model_takes_is_refused_once_beside_a_model_that_generates() -> None:
    _, generator = generating()
    unknown, misshaped = stream([generator], request("nobody", 2), request("m", 3))
    assert "unknown model: 'nobody'" in unknown.error_message
    assert "inputs[0].shape[1]" in misshaped.error_message


def test_a_stream_gives_the_room_of_a_large_message_back_when_it_cannot_be_submitted() -> None:
    room = Room(0)
    _, generator = generating(room=room)
    stream([generator], request("m", 8000), request("nobody", 20_000))
    assert room.held == 0


def test_a_stream_without_room_for_a_message_says_so_and_goes_on() -> None:
    room = Room(0)
    room.limit = 30_000
    _, generator = generating(room=room)
    answers = stream([generator], request("m", 8000), request("m", 2))
    assert sorted(answer.error_message for answer in answers) == ["", "", NO_ROOM.text]


@pytest.mark.parametrize("verb", ["submit_in", "generate"])
def test_only_one_file_hands_requests_to_a_backend(verb: str) -> None:
    sites = {
        path.name
        for path in Path(serving.api.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == verb
        if ast.unparse(node.func.value).rpartition(".")[2] in ("sequencer", "generator", "backend")
    }
    assert sites == {SUBMITTER}


def test_only_one_file_takes_the_submit_of_a_backend() -> None:
    sites = {
        path.name
        for path in Path(serving.api.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "submit"
        if ast.unparse(node.value).rpartition(".")[2] == "backend"
    }
    assert sites == {SUBMITTER}
