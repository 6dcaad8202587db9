"""Relays gRPC calls to the replicas of the model they name, through HAProxy with the metadata `application`. HAProxy
chooses the version, by the message and the caller's key.

Few calls need this. HAProxy cannot read the model's name in compressed messages (`haproxy/editing.py`), so these come
to the front. All messages of a stream reach the replica of the first model, even if later ones name other models. The
request id stays the same in both processes. HAProxy stamps the call again, so its age counts from the relay.
"""

import asyncio
from typing import Any

import grpc

from serving.api.faults import CallFailed, Fault, fault_of_grpc
from serving.api.grpc.pending import RELAYED, REQUEST_ID, Call
from serving.api.grpc.service import STREAM
from serving.cluster.haproxy.routing import KEY_HEADER
from serving.direct import GRPC_OPTIONS

_PASSED_ON = ("authorization", KEY_HEADER, "traceparent", "tracestate", "triton_grpc_error")
_ENDED = Fault(503, "the model's replica ended the stream; try again")
_OPTIONS = (*GRPC_OPTIONS, ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Relayed:
    """A relayed call in flight; implements `api.grpc.service.Answering`."""

    def __init__(self, running: Any) -> None:
        self._running = running

    async def result(self) -> bytes:
        try:
            answer: bytes = await self._running
        except grpc.aio.AioRpcError as error:
            raise CallFailed(_fault(error)) from None
        return answer

    def cancel(self) -> None:
        self._running.cancel()


class RelayedStream:
    """A relayed stream; implements `api.grpc.pending.RemoteStream`."""

    def __init__(self, running: Any) -> None:
        self._running = running

    async def write(self, message: bytes) -> None:
        try:
            await self._running.write(message)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(_fault(error)) from None
        except asyncio.InvalidStateError:
            raise CallFailed(_ENDED) from None

    async def read(self) -> bytes:
        try:
            answer: bytes = await self._running.read()
        except grpc.aio.AioRpcError as error:
            raise CallFailed(_fault(error)) from None
        if answer is grpc.aio.EOF:
            raise CallFailed(_ENDED)
        return answer

    def cancel(self) -> None:
        self._running.cancel()


def _fault(error: grpc.aio.AioRpcError) -> Fault:
    return fault_of_grpc(error.code().value[0], error.details() or "")


class GrpcRelay:
    """Implements `api.grpc.pending.Relay`. target: the address of HAProxy on this node."""

    def __init__(self, target: str, tenant_header: str) -> None:
        self._target = target
        self._tenant_header = tenant_header.lower()
        self._channel: Any = None

    def __call__(self, method: str, message: bytes, model: str, call: Call) -> Relayed:
        return Relayed(self._open().unary_unary(method)(message, **self._facts(model, call)))

    def stream(self, model: str, call: Call) -> RelayedStream:
        return RelayedStream(self._open().stream_stream(STREAM)(**self._facts(model, call)))

    def _open(self) -> Any:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, _OPTIONS)
        return self._channel

    def _facts(self, model: str, call: Call) -> dict[str, Any]:
        metadata = [("application", model), (REQUEST_ID, call.request_id()), (RELAYED, "1")]
        if self._tenant_header and (tenant := call.metadata(self._tenant_header)):
            metadata.append((self._tenant_header, tenant))
        metadata += [(name, value) for name in _PASSED_ON if (value := call.metadata(name))]
        left_ns = call.time_left_ns()
        return {"metadata": metadata, "timeout": None if left_ns is None else left_ns / 1e9}
