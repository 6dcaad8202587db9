"""Sequences over both wires, as Triton's example clients use them."""

import asyncio
import queue
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from models.reference import NumpyModel, accumulate_spec, noop_spec
from models.spec import ModelSpec, TensorSpec
from tests.house import House, house

PATIENCE_S = 20
VALUES = [11, 7, 5, 3, 2, 0, 1]


def simple(spec: ModelSpec) -> NumpyModel:
    """Triton's simple_sequence: returns the input, plus one at the start of a sequence."""
    return NumpyModel(spec, lambda value, begun: (value + (begun == 0), np.ones_like(begun)))


def _number(name: str) -> TensorSpec:
    return TensorSpec(name=name, datatype="INT32", shape=(-1, 1))


SIMPLE = ModelSpec(
    name="simple_sequence",
    factory="tests.api.test_sequences:simple",
    inputs=(_number("INPUT"),),
    outputs=(_number("OUTPUT"),),
    state=(_number("begun"),),
)


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(SIMPLE, accumulate_spec(), noop_spec()) as running:
        yield running


def given(client, value: int, name: str = "INPUT"):
    tensor = client.InferInput(name, [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return [tensor]


def in_order(values: list[int], id: int | str) -> Iterator[dict[str, object]]:
    for index in range(len(values)):
        yield {"sequence_id": id, "sequence_start": index == 0, "sequence_end": index == len(values) - 1}


@pytest.mark.parametrize("ids", [(1007, 1008), ("first", "second")])
@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_two_sequences_one_call_after_the_other(served: House, wire: str, ids) -> None:
    client = http_client if wire == "http" else grpc_client
    with client.InferenceServerClient(getattr(served, wire)) as connected:
        first, second = [0, *VALUES], [100, *(-value for value in VALUES)]
        answers: dict[object, list[int]] = {ids[0]: [], ids[1]: []}
        for places in zip(in_order(first, ids[0]), in_order(second, ids[1]), first, second, strict=True):
            for place, value in zip(places[:2], places[2:], strict=True):
                result = connected.infer("simple_sequence", given(client, value), **place)
                answers[place["sequence_id"]].append(int(result.as_numpy("OUTPUT")[0, 0]))
        assert answers[ids[0]] == [1, *VALUES]
        assert answers[ids[1]] == [101, *(-value for value in VALUES)]


def test_two_sequences_in_one_stream_answered_in_their_order(served: House) -> None:
    came: queue.Queue = queue.Queue()
    with grpc_client.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: came.put(error or result))
        for id, values in ((1, [0, *VALUES]), (2, [100, *VALUES])):
            for place, value in zip(in_order(values, id), values, strict=True):
                client.async_stream_infer("simple_sequence", given(grpc_client, value), request_id=str(id), **place)
        results = [came.get(timeout=PATIENCE_S) for _ in range(16)]
        client.stop_stream()
    answers = [(int(result.get_response().id), int(result.as_numpy("OUTPUT")[0, 0])) for result in results]
    assert [value for id, value in answers if id == 1] == [1, *VALUES]
    assert [value for id, value in answers if id == 2] == [101, *VALUES]


def test_the_asyncio_client_streams_a_sequence(served: House) -> None:
    async def story() -> list[int]:
        async with grpc_aio.InferenceServerClient(served.grpc) as client:

            async def requests():
                for place, value in zip(in_order(VALUES, 3), VALUES, strict=True):
                    yield {"model_name": "accumulate", "inputs": given(grpc_client, value, "x"), **place}

            return [
                int(result.as_numpy("sum")[0, 0])
                async for result, error in client.stream_infer(requests())
                if not error
            ]

    assert asyncio.run(story()) == np.cumsum(VALUES).tolist()


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_a_sequence_without_its_start_is_refused_in_tritons_words(served: House, wire: str) -> None:
    client = http_client if wire == "http" else grpc_client
    with client.InferenceServerClient(getattr(served, wire)) as connected:
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            connected.infer("simple_sequence", given(client, 1), sequence_id=4711)
        with pytest.raises(InferenceServerException, match="must specify a non-zero or non-empty sequence_id"):
            connected.infer("simple_sequence", given(client, 1))
        config = connected.get_model_config("simple_sequence")
        assert ("sequence_batching" in config) if wire == "http" else config.config.HasField("sequence_batching")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"sequence_id": 1.5}, "parameters.sequence_id: must be a number or a text"),
        ({"sequence_id": True}, "parameters.sequence_id"),
        ({"sequence_id": 1, "sequence_start": 1}, "parameters.sequence_start: must be true or false"),
    ],
)
def test_parameters_that_are_none_are_refused_with_their_path(served: House, parameters, said: str) -> None:
    body = {"inputs": [{"name": "x", "datatype": "INT32", "shape": [1, 1], "data": [1]}], "parameters": parameters}
    refused = httpx.post(f"http://{served.http}/v2/models/accumulate/infer", json=body)
    assert (refused.status_code, said in refused.json()["error"]) == (400, True)


@pytest.mark.parametrize("wire", ["http", "grpc"])
@pytest.mark.parametrize("limits", [{"priority": 2**64 - 1}, {"timeout": 2**63 - 1}])
def test_the_largest_numbers_that_triton_takes_are_taken_by_every_kind_of_model(served: House, wire, limits) -> None:
    client = http_client if wire == "http" else grpc_client
    zeros = client.InferInput("x", [1, 1024], "FP32")
    zeros.set_data_from_numpy(np.zeros((1, 1024), np.float32))
    with client.InferenceServerClient(getattr(served, wire)) as connected:
        assert connected.infer("noop", [zeros], **limits).as_numpy("y").tolist() == [[0.0]]
        first = {"sequence_id": 77, "sequence_start": True, "sequence_end": True}
        answer = connected.infer("simple_sequence", given(client, 3), **first, **limits)
        assert answer.as_numpy("OUTPUT").tolist() == [[4]]


@pytest.mark.parametrize("wrong", [2**64, -1, 1.5, "1", True])
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_what_is_no_such_number_is_refused_with_its_path(served: House, name: str, wrong: object) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1024], "data": [0.0] * 1024}
    refused = httpx.post(
        f"http://{served.http}/v2/models/noop/infer", json={"inputs": [tensor], "parameters": {name: wrong}}
    )
    assert refused.status_code == 400
    assert refused.json()["error"] == f"parameters.{name}: must be a whole number from 0 to 2^64 - 1"


def test_a_sequence_can_be_continued_by_generate_whose_other_fields_are_parameters(served: House) -> None:
    url = f"http://{served.http}/v2/models/accumulate/generate"
    place = {"sequence_id": "by hand", "sequence_start": True}
    assert httpx.post(url, json={"x": 4, **place}).json()["sum"] == 4
    assert httpx.post(url, json={"x": 3, "parameters": {"sequence_id": "by hand"}}).json()["sum"] == 7
    refused = httpx.post(url, json={"x": 3})
    assert (refused.status_code, "sequence_id" in refused.json()["error"]) == (400, True)
