"""Passes calls that reached the front on to the replicas of the model they name, through HAProxy and by its metadata.

They are the exception: compressed messages, whose name HAProxy cannot read (`haproxy.py`). Both processes call them by
one id, and they are stamped anew: their age counts from here.
"""

from typing import Any

import grpc

from serving.api.faults import CallFailed, fault_of_grpc
from serving.api.grpc_pending import REQUEST_ID, Call
from serving.direct import GRPC_OPTIONS

_PASSED_ON = ("traceparent", "tracestate")
_OPTIONS = (*GRPC_OPTIONS, ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Relayed:
    """A call on its way; see `grpc_service.Answering`."""

    def __init__(self, running: Any) -> None:
        self._running = running

    async def result(self) -> bytes:
        try:
            answer: bytes = await self._running
        except grpc.aio.AioRpcError as error:
            raise CallFailed(fault_of_grpc(error.code().value[0], error.details() or "")) from None
        return answer

    def cancel(self) -> None:
        self._running.cancel()


class GrpcRelay:
    """See `grpc_service.Relay`. target: the address of HAProxy on this node."""

    def __init__(self, target: str, tenant_header: str) -> None:
        self._target = target
        self._tenant_header = tenant_header.lower()
        self._channel: Any = None

    def __call__(self, method: str, message: bytes, model: str, call: Call) -> Relayed:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._target, _OPTIONS)
        metadata = [("application", model), (REQUEST_ID, call.request_id())]
        if self._tenant_header and (tenant := call.metadata(self._tenant_header)):
            metadata.append((self._tenant_header, tenant))
        metadata += [(name, value) for name in _PASSED_ON if (value := call.metadata(name))]
        left_ns = call.time_left_ns()
        timeout_s = None if left_ns is None else left_ns / 1e9
        return Relayed(self._channel.unary_unary(method)(message, timeout=timeout_s, metadata=metadata))
