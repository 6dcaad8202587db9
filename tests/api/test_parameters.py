"""Models that take the request's parameters as a keyword-only argument, over both wires and all operations."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as over_grpc
from torch import nn

from models.parameters import takes_parameters
from models.pytorch.runner import load_module
from models.pytorch.scripted import ScriptedDevice
from models.reference import echo_spec
from models.spec import ModelSpec, TensorSpec
from serving.runtime.answers import prepared
from tests.api.triton_clients import connect, failure
from tests.house import House, house

SEEN: list[dict[str, object]] = []


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor, *, parameters: Mapping[str, Any]) -> torch.Tensor:
        SEEN.append(dict(parameters))
        return x * parameters.get("scale", 1)


class Smoothed(nn.Module):
    """A model with state that takes parameters."""

    def forward(self, x: torch.Tensor, sum: torch.Tensor, *, parameters: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        sum = sum + x * parameters.get("scale", 1)
        return sum, sum


class Repeated:
    def generate(self, inputs: dict[str, np.ndarray], *, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        SEEN.append(dict(parameters))
        for _ in range(int(parameters.get("times", 1))):
            yield {"y": inputs["x"]}


class RepeatedModule(nn.Module):
    generate = Repeated.generate


def spec(name: str, factory: str, **more: Any) -> ModelSpec:
    row = {"datatype": "FP32", "shape": (-1, 1)}
    return echo_spec(
        name=name,
        factory=f"tests.api.test_parameters:{factory}",
        inputs=(TensorSpec(name="x", **row),),
        outputs=(TensorSpec(name="y", **row),),
        **more,
    )


ALONE = {
    "inputs": (TensorSpec(name="x", datatype="FP32", shape=(1,), batched=False),),
    "outputs": (TensorSpec(name="y", datatype="FP32", shape=(1,), batched=False),),
}


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    state = (TensorSpec(name="sum", datatype="FP32", shape=(-1, 1)),)
    alone = echo_spec(name="alone", factory="tests.api.test_parameters:Scaled", **ALONE)
    kinds = [spec("repeated", "Repeated", decoupled=True), spec("module", "RepeatedModule", decoupled=True)]
    with house(spec("scaled", "Scaled"), alone, spec("smoothed", "Smoothed", state=state), *kinds) as running:
        yield running


def given(wire, value: float, *shape: int) -> list:
    array = np.full(shape or (1, 1), value, np.float32)
    return [wire.InferInput("x", list(array.shape), "FP32").set_data_from_numpy(array)]


def test_forward_is_given_the_requests_own_parameters(wire, triton) -> None:
    for _ in range(2):
        for more, expected in (({}, 3), ({"scale": 2}, 6), ({"scale": 5, "note": "a", "flag": True}, 15)):
            own = {"parameters": more, "priority": 1, "sequence_id": 3} if more else {}
            assert triton.infer("scaled", given(wire, 3), **own).as_numpy("y").tolist() == [[expected]]
            assert SEEN[-1] == more
    assert triton.infer("alone", given(wire, 3, 1), parameters={"scale": 4}).as_numpy("y").tolist() == [12]


def test_a_state_is_carried_along(wire, triton) -> None:
    for starts, expected in ((True, 6), (False, 12)):
        place = {"sequence_id": 12, "sequence_start": starts}
        result = triton.infer("smoothed", given(wire, 3), parameters={"scale": 2}, **place)
        assert result.as_numpy("y").tolist() == [[expected]]


@pytest.mark.parametrize("model", ["repeated", "module"])
def test_generate_is_given_them_over_http_and_in_streams(served: House, model: str) -> None:
    url = f"http://{served.http}/v2/models/{model}/generate_stream"
    for body in ({"x": 1, "times": 3}, {"x": 1, "parameters": {"times": 3, "timeout": 10**9}}):
        assert httpx.post(url, json=body).text.count("data: ") == 3
        assert SEEN[-1] == {"times": 3}
    answers: list = []
    with connect(served, over_grpc) as client:
        client.start_stream(lambda result, error: answers.append(error or result))
        client.async_stream_infer(model, given(over_grpc, 1), parameters={"times": 4})
        served.until(lambda: len(answers) == 4)
        client.stop_stream()
    assert SEEN[-1] == {"times": 4}


def test_a_field_of_generate_is_one_too(served: House) -> None:
    url = f"http://{served.http}/v2/models/scaled/generate"
    assert httpx.post(url, json={"x": 3, "scale": 2}).json()["y"] == 6
    assert httpx.post(url, json={"x": 3, "parameters": {"scale": 2.5}}).json()["y"] == 7.5


def test_what_is_no_parameter_is_refused_with_its_path(served: House) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    body = {"inputs": [tensor], "parameters": {"scale": [1]}}
    refused = httpx.post(f"http://{served.http}/v2/models/scaled/infer", json=body)
    assert (refused.status_code, "parameters.scale: must be" in refused.text) == (400, True)


def test_an_error_in_the_use_of_parameters_is_reported(wire, triton) -> None:
    assert "the model failed" in failure(triton.infer, "scaled", given(wire, 3), parameters={"scale": "two"})


@pytest.mark.parametrize("device", [None, ScriptedDevice()], ids=["CPU", "asynchronous device"])
def test_only_requests_with_equal_parameters_share_a_batch(device: Any) -> None:
    model = load_module(spec("scaled", "Scaled"), Scaled(), device)
    one = np.ones((1, 1), np.float32)
    parts = [
        prepared(model, {"x": one}, said) for said in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": True, "b": 2}, {})
    ]
    groups = [part.group for part in parts]  # type: ignore[union-attr]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
    assert not model.tunable


def test_only_a_keyword_only_argument_asks_for_them() -> None:
    assert takes_parameters(Scaled().forward)
    assert not takes_parameters(lambda x, parameters: x)  # an input of that name
    assert not takes_parameters(lambda x, **others: x)
    assert not takes_parameters(torch.add)
