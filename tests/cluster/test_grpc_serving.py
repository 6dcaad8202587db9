"""Tests unmodified tritonclient.grpc on a real Ray, behind the real HAProxy: it names the model and nothing else."""

import json
import queue
import threading
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as client
import tritonclient.http
from tritonclient.utils import InferenceServerException

from serving.operate.launch import Cluster
from tests.cluster.conftest import GRPC_PORT, PORT

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

ADDRESS = f"127.0.0.1:{GRPC_PORT}"
HTTP = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def triton(cluster: Cluster):
    with client.InferenceServerClient(ADDRESS) as connected:
        yield connected


def inputs(value: float = 1.0, columns: int = 1024) -> list[client.InferInput]:
    x = client.InferInput("x", [1, columns], "FP32")
    return [x.set_data_from_numpy(np.full((1, columns), value, np.float32))]


def test_each_model_answers_for_itself_although_the_client_names_only_the_model(triton) -> None:
    for _ in range(3):
        assert triton.infer("noop", inputs()).get_response().model_name == "noop"
        assert triton.infer("slow", inputs(2.0)).as_numpy("y").shape == (1, 1024)
    assert triton.is_model_ready("noop")
    assert triton.get_model_metadata("slow").name == "slow"
    assert triton.get_model_config("slow").config.name == "slow"
    assert triton.get_inference_statistics("noop").model_stats[0].inference_count >= 3


def test_the_fast_door_is_open(triton) -> None:
    assert triton.get_model_config("noop").config.parameters["grpc_door"].string_value == "fast"


def test_the_front_answers_what_belongs_to_no_model(triton) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    names = {entry.name for entry in triton.get_model_repository_index().models}
    assert names == {"noop", "slow", "words", "accumulate"}
    assert not triton.is_model_ready("nobody")
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'") as caught:
        triton.infer("nobody", inputs())
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_a_model_generates_by_stream_and_by_event_and_the_page_knows_it(triton) -> None:
    came: queue.Queue = queue.Queue()
    triton.start_stream(lambda result, error: came.put(error or result))
    text = client.InferInput("text", [1, 1], "BYTES")
    text.set_data_from_numpy(np.array([["when the train left"]], dtype=object))
    triton.async_stream_infer("words", [text], enable_empty_final_response=True)
    answers = [came.get(timeout=20) for _ in range(5)]
    triton.stop_stream()
    assert [answer.as_numpy("word")[0, 0] for answer in answers[:4]] == [b"when", b"the", b"train", b"left"]
    with urllib.request.urlopen(f"{HTTP}/v2/models/words/generate_stream", data=b'{"text": "at noon"}') as events:
        assert events.read().count(b"data: ") == 2
    with urllib.request.urlopen(f"{HTTP}/openapi.json") as document:
        paths = json.load(document)["paths"]
    assert paths["/v2/models/words/infer"]["post"]["x-model"]["decoupled"]
    with urllib.request.urlopen(f"{HTTP}/") as page:
        assert b"Try a model" in page.read()


def test_a_sequence_keeps_its_state_whatever_wire_its_requests_take(triton) -> None:
    def number(wire, value: int):
        return [wire.InferInput("x", [1, 1], "INT32").set_data_from_numpy(np.array([[value]], np.int32))]

    with tritonclient.http.InferenceServerClient(HTTP.removeprefix("http://")) as over_http:
        sums = []
        for index, value in enumerate([3, 4, 5, 6]):
            wire, connected = ((client, triton), (tritonclient.http, over_http))[index % 2]
            place = {"sequence_id": 7, "sequence_start": index == 0, "sequence_end": index == 3}
            sums.append(int(connected.infer("accumulate", number(wire, value), **place).as_numpy("sum")[0, 0]))
    assert sums == [3, 7, 12, 18]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_messages_hide_the_name_and_find_their_model_through_the_front(triton, coding: str) -> None:
    assert triton.infer("noop", inputs(), compression_algorithm=coding).get_response().model_name == "noop"
    with pytest.raises(InferenceServerException, match=r"inputs\[0\].shape\[1\]") as caught:
        triton.infer("noop", inputs(columns=3), compression_algorithm=coding)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.parametrize("late", [False, True])
def test_a_stream_finds_its_model_also_if_its_first_message_comes_late(triton, late: bool) -> None:
    told: list[tuple[object, object]] = []
    complete = threading.Event()

    def tell(result, error) -> None:
        told.append((result, error))
        if len(told) == 5:
            complete.set()

    triton.start_stream(tell)
    if late:
        complete.wait(1.5)  # long after the stream has been opened
    for index in range(5):
        triton.async_stream_infer("noop", inputs(), request_id=str(index))
    assert complete.wait(20)
    triton.stop_stream()
    assert [error for _, error in told] == [None] * 5
    assert [result.get_response().id for result, _ in told] == ["0", "1", "2", "3", "4"]


def test_each_message_of_a_stream_is_answered_by_the_model_that_it_names(triton) -> None:
    told: queue.Queue = queue.Queue()
    triton.start_stream(lambda result, error: told.put(error or result))
    names = ["noop", "slow", "noop", "slow"]
    for name in names:
        triton.async_stream_infer(name, inputs())
    answers = [told.get(timeout=20).get_response() for _ in names]
    assert [answer.model_name for answer in answers] == names
    triton.async_stream_infer("nobody", inputs())
    assert "unknown model: 'nobody'" in str(told.get(timeout=20))
    triton.stop_stream()


def test_a_message_larger_than_grpcs_own_limit_passes(triton) -> None:
    with pytest.raises(InferenceServerException, match="takes 1024") as caught:
        triton.infer("noop", inputs(columns=2_000_000))
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_the_announcement_names_the_grpc_address(cluster: Cluster) -> None:
    assert any(ADDRESS in line for line in cluster.announcement())
