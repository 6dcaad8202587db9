"""Inputs that a request may leave out (`optional: true`), over both wires."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from models.reference import NumpyModel, echo_spec
from models.spec import ModelSpec, TensorSpec
from tests.api.triton_clients import connect, failure
from tests.house import House, house


def masked(spec: ModelSpec) -> NumpyModel:
    return NumpyModel(spec, lambda x, mask: (x if mask is None else x * mask,))


def row(name: str, *, optional: bool = False) -> TensorSpec:
    return TensorSpec(name=name, datatype="FP32", shape=(-1, 2), optional=optional)


MASKED = echo_spec(
    name="masked",
    factory="tests.api.test_optional_inputs:masked",
    inputs=(row("x"), row("mask", optional=True)),
    outputs=(row("y"),),
)


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(MASKED) as running:
        yield running


def given(wire, **values: list[float]) -> list:
    tensors = []
    for name, numbers in values.items():
        array = np.array([numbers], np.float32)
        tensors.append(wire.InferInput(name, list(array.shape), "FP32").set_data_from_numpy(array))
    return tensors


def test_a_request_may_leave_it_out_or_give_it(wire, triton) -> None:
    for _ in range(2):  # the second time from what was kept of the first head
        assert triton.infer("masked", given(wire, x=[1, 2])).as_numpy("y").tolist() == [[1, 2]]
        assert triton.infer("masked", given(wire, x=[1, 2], mask=[2, 3])).as_numpy("y").tolist() == [[2, 6]]
        assert triton.infer("masked", given(wire, mask=[2, 3], x=[1, 2])).as_numpy("y").tolist() == [[2, 6]]
    assert failure(triton.infer, "masked", given(wire, mask=[2, 3])).endswith("inputs: missing 'x'")


def test_generate_leaves_it_out_too(served: House) -> None:
    url = f"http://{served.http}/v2/models/masked/generate"
    assert httpx.post(url, json={"x": [1, 2]}).json()["y"] == [1, 2]
    assert httpx.post(url, json={"x": [1, 2], "mask": [2, 3]}).json()["y"] == [2, 6]
    assert httpx.post(url, json={"mask": [2, 3]}).json()["error"] == "x: is missing"


def test_the_configuration_and_the_openapi_document_say_so(served: House) -> None:
    with connect(served, over_http) as client, connect(served, over_grpc) as other:
        config = client.get_model_config("masked")
        assert [tensor["optional"] for tensor in config["input"]] == [False, True]
        assert [tensor.optional for tensor in other.get_model_config("masked").config.input] == [False, True]
    paths = httpx.get(f"http://{served.http}/openapi.json").json()["paths"]
    inputs = paths["/v2/models/masked/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert (inputs["properties"]["inputs"]["minItems"], inputs["properties"]["inputs"]["maxItems"]) == (1, 2)
