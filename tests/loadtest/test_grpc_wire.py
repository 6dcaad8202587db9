"""Shots over gRPC, against a small scripted server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from loadtest.shooter import shoot
from loadtest.shot import Shot
from loadtest.wires import Address, NoMetadata
from loadtest.wires.opening import open_wire
from loadtest.workload import Prepared, infer_inputs
from serving.protocol.messages import InferRequest, TensorDescription

Script = Callable[[Any, Any], Awaitable[Any]]
INPUTS = [TensorDescription("x", "FP32", (-1, 2)), TensorDescription("text", "BYTES", (-1, 1))]


class Scripted(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, infer: Script) -> None:
        self.infer = infer

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name != "m":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name}")
        inputs = [{"name": each.name, "datatype": each.datatype, "shape": each.shape} for each in INPUTS]
        return service_pb2.ModelMetadataResponse(name="m", inputs=inputs)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        return await self.infer(request, context)


@asynccontextmanager
async def listening(infer: Script) -> AsyncIterator[Address]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Scripted(infer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Address.parse(f"grpc://127.0.0.1:{port}/v2/models/m")
    finally:
        await server.stop(None)


def shot(infer: Script, **options: float) -> Shot:
    async def run() -> Shot:
        async with listening(infer) as address:
            wire = open_wire("grpc", address)
            tensors = infer_inputs({"x": [[1, 2]], "text": ["hello"]}, INPUTS, "a")
            message = wire.prepare(
                "m", InferRequest(tensors, parameters={"priority": 1, "timeout": 5}), {"x-t": "shop"}
            )
            (made,) = await shoot(wire, [0], [Prepared(request=message, task="a")], **options)
            await wire.close()
            return made

    return asyncio.run(run())


def test_a_request_arrives_whole_with_parameters_and_metadata() -> None:
    seen: list[Any] = []

    async def infer(request: Any, context: Any) -> Any:
        seen.append((request, dict(context.invocation_metadata())))
        return service_pb2.ModelInferResponse(model_name="m")

    made = shot(infer)
    assert (made.status, made.error) == (200, None)
    assert made.planned_ns <= made.sent_ns <= made.first_byte_ns <= made.done_ns
    ((request, metadata),) = seen
    assert request.model_name == "m"
    assert [tensor.name for tensor in request.inputs] == ["x", "text"]
    assert request.raw_input_contents[0] == np.array([[1, 2]], np.float32).tobytes()
    assert request.raw_input_contents[1] == b"\5\0\0\0hello"
    assert request.parameters["priority"].uint64_param == 1
    assert request.parameters["timeout"].int64_param == 5
    assert metadata["x-t"] == "shop"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.INTERNAL, 500),
    ],
)
def test_a_refusal_over_grpc_is_reported_as_an_http_status(code: grpc.StatusCode, status: int) -> None:
    async def infer(request: Any, context: Any) -> Any:
        await context.abort(code, "the queue is full")

    made = shot(infer)
    assert (made.status, made.error, made.is_answered) == (status, "the queue is full", False)


def test_a_silent_server_is_given_up_and_the_call_is_cancelled() -> None:
    async def infer(request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    assert shot(infer, timeout_s=0.2).error == "timed out"


def test_a_model_is_described_and_an_unknown_one_is_not() -> None:
    async def infer(request: Any, context: Any) -> Any: ...

    async def run() -> None:
        async with listening(infer) as address:
            wire = open_wire("grpc", address)
            assert await wire.describe("m") == INPUTS
            with pytest.raises(NoMetadata, match="ModelMetadata of 'other': NOT_FOUND: no model other"):
                await wire.describe("other")
            await wire.close()

    asyncio.run(run())
