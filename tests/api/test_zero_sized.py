"""Rows without elements are accepted and answered over both wires, like any other row."""

import asyncio
import http.client
import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2

from models import reference
from models.spec import ModelSpec, TensorSpec
from serving.core.outcome import Completed
from serving.protocol.grpc_codec import GrpcLayout, split
from serving.runtime.engine import Engine
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import grpc_serving

DATATYPES = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_, "FP16": np.float16}


def echo(datatype: str):
    return model("m", ("x", datatype, (-1, -1)), backend=EchoBackend())


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_over_http(serve, datatype: str, binary_in: bool, binary_out: bool) -> None:
    if datatype == "FP16" and not (binary_in and binary_out):
        pytest.skip("FP16 travels as binary data only")
    server = serve([echo(datatype)])
    x = triton_http.InferInput("x", [1, 0], datatype)
    x.set_data_from_numpy(np.zeros((1, 0), DATATYPES[datatype]), binary_data=binary_in)
    with triton_http.InferenceServerClient(server.address) as client:
        result = client.infer("m", [x], outputs=[triton_http.InferRequestedOutput("x", binary_data=binary_out)])
    assert result.get_output("x")["shape"] == [1, 0]
    assert result.get_output("x")["datatype"] == datatype


def test_over_http_as_people_write_it(serve) -> None:
    server = serve([echo("FP32")])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for shape, data, status in (([1, 0], [], 200), ([2, 0], [[], []], 200), ([1, 0], [1], 400), ([0, 3], [], 400)):
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]}
        connection.request("POST", "/v2/models/m/infer", json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        assert response.status == status, answer
        if status == 200:
            assert (answer["outputs"][0]["shape"], answer["outputs"][0]["data"]) == (shape, [])
    connection.close()


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("door", ["plain", "fast"])
def test_over_grpc(datatype: str, door: str) -> None:
    x = triton_grpc.InferInput("x", [1, 0], datatype)
    x.set_data_from_numpy(np.zeros((1, 0), DATATYPES[datatype]))
    with (
        grpc_serving([echo(datatype)], door=door) as served,
        triton_grpc.InferenceServerClient(served.address) as client,
    ):
        result = client.infer("m", [x])
    assert list(result.get_output("x").shape) == [1, 0]
    assert result.as_numpy("x").size == 0


@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "BOOL"])
@pytest.mark.parametrize("contents", [None, {}])
def test_over_grpc_without_raw_contents(datatype: str, contents: dict | None) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype=datatype, shape=[2, 0], contents=contents)
    found = split(request.SerializeToString())
    values = GrpcLayout(found.head).read(found)
    assert values["x"].shape == (2, 0)


def test_the_engine_computes_them_beside_others() -> None:
    x = TensorSpec(name="x", datatype="FP32", shape=(-1, -1))
    spec = ModelSpec(name="m", factory="models.reference:echo", inputs=(x,), outputs=(x,))

    async def story() -> list[object]:
        async with Engine([reference.echo(spec)]) as engine:
            payloads = [np.zeros((1, width), np.float32) for width in (0, 2, 0, 0)]
            return await asyncio.gather(*(engine.submit({"x": payload}, rows=1) for payload in payloads))

    outcomes = asyncio.run(story())
    assert all(isinstance(outcome, Completed) for outcome in outcomes), outcomes
    assert [outcome.value["x"].shape for outcome in outcomes] == [(1, 0), (1, 2), (1, 0), (1, 0)]
