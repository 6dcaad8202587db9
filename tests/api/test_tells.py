"""Metadata, configuration and statistics of models, compared with a real Triton's answers."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
from google.protobuf.json_format import MessageToDict

from models.reference import noop_spec, words_spec
from tests.api.triton_clients import connect
from tests.house import House, house


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(noop_spec(), words_spec()) as running:
        yield running


@pytest.mark.parametrize(("model", "version"), [("noop", "2"), ("noop", "x"), ("nobody", ""), ("nobody", "1")])
def test_what_is_not_there_is_not_ready_and_that_is_no_error(triton, model: str, version: str) -> None:
    assert triton.is_model_ready(model, version) is False
    assert triton.is_model_ready("noop", "1") is True


def last_inference(answer: object) -> int:
    stats = answer if isinstance(answer, dict) else MessageToDict(answer, preserving_proto_field_name=True)
    return int(stats["model_stats"][0].get("last_inference", 0))


def test_the_last_inference_is_an_instant_on_the_calendar(wire, triton) -> None:
    zeros = wire.InferInput("x", [1, 1024], "FP32").set_data_from_numpy(np.zeros((1, 1024), np.float32))
    began_ms = time.time_ns() // 1_000_000
    triton.infer("noop", [zeros])
    last_ms = last_inference(triton.get_inference_statistics("noop"))
    assert began_ms <= last_ms <= time.time_ns() // 1_000_000


def test_a_generation_is_an_inference_too(served: House) -> None:
    with connect(served, over_grpc) as client:
        assert last_inference(client.get_inference_statistics("words")) == 0
        answers: list[object] = []
        client.start_stream(lambda result, error: answers.append(error or result))
        text = over_grpc.InferInput("text", [1, 1], "BYTES").set_data_from_numpy(np.array([[b"noon"]], object))
        client.async_stream_infer("words", [text], enable_empty_final_response=True)
        served.until(lambda: len(answers) == 2)
        client.stop_stream()
        assert last_inference(client.get_inference_statistics("words")) > 0
