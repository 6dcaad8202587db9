"""The Open Inference Protocol over gRPC: unary `ModelInfer` on a few channels. Needs `tritonclient[grpc]`.

Messages are serialised before the run and sent as bytes, so that protobuf costs nothing during the run."""

import asyncio
from collections.abc import Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from loadtest.wires import Address, Flight, NoMetadata
from serving.protocol.messages import InferRequest, TensorDescription
from serving.protocol.tensors import write_bytes, write_tensor

_SERVICE = "/inference.GRPCInferenceService"
_CHANNELS = 4  # one connection each; a load balancer may send all calls of one channel to one replica
# Proxies are disabled: the server at this address is measured, as over HTTP.
_NO_LIMIT = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
]
_DESCRIBE_S = 10.0

# HTTP statuses by gRPC code (google.rpc.Code), so that reports and objectives use one kind of status.
STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
}


class GrpcWire:
    def __init__(self, address: Address) -> None:
        import grpc.aio

        try:
            from tritonclient.grpc import service_pb2
        except ImportError as error:
            raise ValueError("wire: grpc needs another package: pip install 'headway[loadtest]'") from error
        self._grpc, self._messages = grpc, service_pb2
        self._channels = [
            # Channels with different options do not share a connection.
            grpc.aio.insecure_channel(address.authority, options=[*_NO_LIMIT, ("headway.channel", number)])
            for number in range(_CHANNELS)
        ]
        self._calls = [
            channel.unary_unary(f"{_SERVICE}/ModelInfer", request_serializer=None, response_deserializer=None)
            for channel in self._channels
        ]
        self._next = 0

    async def describe(self, model: str) -> list[TensorDescription]:
        ask = self._channels[0].unary_unary(
            f"{_SERVICE}/ModelMetadata",
            request_serializer=self._messages.ModelMetadataRequest.SerializeToString,
            response_deserializer=self._messages.ModelMetadataResponse.FromString,
        )
        try:
            metadata = await ask(self._messages.ModelMetadataRequest(name=model), timeout=_DESCRIBE_S)
        except self._grpc.aio.AioRpcError as error:
            raise NoMetadata(f"ModelMetadata of {model!r}: {error.code().name}: {error.details()}") from None
        return [TensorDescription(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in metadata.inputs]

    def prepare(self, model: str, request: InferRequest, headers: Mapping[str, str]) -> object:
        made = self._messages.ModelInferRequest(model_name=model, id=request.id)
        for name, value in request.parameters.items():
            _set(made.parameters[name], name, value)
        for tensor in request.inputs:
            made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            is_text = tensor.datatype == "BYTES"
            raw = write_bytes(tensor.data) if is_text else write_tensor(tensor.data)
            made.raw_input_contents.append(raw if isinstance(raw, bytes) else raw.tobytes())
        metadata: Sequence[tuple[str, str]] = tuple(headers.items())
        return made.SerializeToString(), metadata

    async def exchange(self, prepared: Any, flight: Flight) -> None:
        body, metadata = prepared
        self._next = (self._next + 1) % len(self._calls)
        flight.sent_ns = perf_counter_ns()
        call = self._calls[self._next](body, metadata=metadata)
        try:
            await call.initial_metadata()
            flight.first_byte_ns = perf_counter_ns()
            await call
            flight.done_ns = perf_counter_ns()
            flight.status = STATUS["OK"]
        except self._grpc.aio.AioRpcError as error:
            # UNAVAILABLE may come from the server, or from the library for a lost connection; the details show which.
            flight.done_ns = perf_counter_ns()
            flight.status = STATUS.get(error.code().name, 500)
            flight.error = error.details() or error.code().name
        except asyncio.CancelledError:
            call.cancel()
            raise

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def _set(parameter: Any, name: str, value: object) -> None:
    """Sets a parameter with tritonclient's types: a priority is unsigned, other integers are signed."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and name == "priority":
        parameter.uint64_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = str(value)
