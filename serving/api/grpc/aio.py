"""Serves the inference service on grpc.aio. Handlers take and return bytes, so that no message is parsed twice.

Deadlines and cancellation are gRPC's own: the runtime cancels the handler when the client cancels the call or its
deadline passes, and that withdraws the request from the queue.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc_reflection.v1alpha import reflection

from serving.api.admission.age import HEADER, HERE
from serving.api.admission.gate import Peer
from serving.api.exchange import facts, new_id
from serving.api.faults import CallFailed, Fault
from serving.api.grpc.pending import REQUEST_ID
from serving.api.grpc.service import INFER, STREAM, WATCH, GrpcService
from serving.protocol.pb import HEALTH, SERVICE, pool

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SECOND_NS = 1_000_000_000
_AGE = HEADER.decode()


class AioCall:
    """Implements `pending.Call` for a grpc.aio context.

    age_ns: age of the call when its handler began, which is subtracted from the time left; 0 if the engine does that.
    """

    __slots__ = ("_age_ns", "_context", "_request_id")

    def __init__(self, context: Any, age_ns: int = 0) -> None:
        self._context = context
        self._age_ns = age_ns
        self._request_id = ""

    def time_left_ns(self) -> int | None:
        left_s = self._context.time_remaining()
        return None if left_s is None else max(1, int(left_s * _SECOND_NS) - self._age_ns)

    def metadata(self, name: str) -> str:
        for key, value in self._context.invocation_metadata() or ():
            if key == name:
                return str(value)
        return ""

    @property
    def peer(self) -> Peer:
        return Peer(self.metadata)

    def request_id(self) -> str:
        self._request_id = self._request_id or self.metadata(REQUEST_ID) or new_id().decode()
        return self._request_id


class Calls:
    """The handlers of all methods, in the form that grpc.aio expects."""

    def __init__(self, service: GrpcService) -> None:
        self._service = service

    def handlers(self) -> dict[str, Any]:
        """Returns the handlers by the path of the method."""
        calls = {path: grpc.unary_unary_rpc_method_handler(self._unary(path)) for path in self._service.paths}
        return calls | {
            INFER: grpc.unary_unary_rpc_method_handler(self.infer),
            STREAM: grpc.stream_stream_rpc_method_handler(self.stream),
            WATCH: grpc.unary_stream_rpc_method_handler(self._watch),
        }

    async def infer(self, message: bytes, context: Any, age_ns: int = 0) -> bytes:
        call = AioCall(context)
        named = (REQUEST_ID, call.request_id())
        context.set_trailing_metadata((named,))
        try:
            answer, outcome = await self._service.infer(message, call, age_ns)
            if told := facts(outcome):
                context.set_trailing_metadata((named, *((name.decode(), value.decode()) for name, value in told)))
            return answer
        except CallFailed as failed:
            await _abort(context, failed.fault, named)

    async def stream(self, messages: AsyncIterator[bytes], context: Any, age_ns: int = 0) -> None:
        writing = asyncio.Lock()

        async def send(message: bytes) -> None:
            async with writing:  # requests are answered concurrently, and grpc.aio fails on two writes at a time
                await context.write(message)

        try:
            await self._service.stream(messages, send, AioCall(context, age_ns))
        except CallFailed as failed:
            await _abort(context, failed.fault)

    async def _watch(self, message: bytes, context: Any) -> None:
        try:
            await self._service.watch_health(message, AioCall(context).peer, context.write)
        except CallFailed as failed:
            await _abort(context, failed.fault)

    def _unary(self, path: str) -> Callable[[bytes, Any], Any]:
        async def answer(message: bytes, context: Any) -> bytes:
            try:
                return await self._service.answer(path, message, AioCall(context))
            except CallFailed as failed:
                await _abort(context, failed.fault)

        return answer


class Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Finds the handler of a call when its headers have arrived. The age of the call is taken then, so that a slow
    upload of the message does not use up the client's deadline."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._method_handlers = calls.handlers()  # Ray Serve reads the names of the services from this attribute

    def service(self, details: Any) -> Any:
        if details.method in (INFER, STREAM):
            stamp = next((value for name, value in details.invocation_metadata if name == _AGE), "")
            age_ns = HERE.age_ns(stamp.encode())
            if details.method == INFER:
                return grpc.unary_unary_rpc_method_handler(partial(self._calls.infer, age_ns=age_ns))
            return grpc.stream_stream_rpc_method_handler(partial(self._calls.stream, age_ns=age_ns))
        return self._method_handlers.get(details.method)


async def _abort(context: Any, fault: Fault, *trailers: tuple[str, str]) -> NoReturn:
    trailers += tuple((name.decode(), value.decode()) for name, value in fault.grpc_trailers)
    await context.abort(_CODES[fault.grpc_code], fault.text.encode(errors="replace").decode(), trailers)
    raise AssertionError("grpc.aio's abort must raise an exception")


def add_inference_service(server: Any, service: GrpcService) -> None:
    """Adds the handlers of inference, health and reflection to a grpc.aio server. grpcurl and similar clients use
    reflection to list the methods."""
    server.add_generic_rpc_handlers((Handlers(Calls(service)),))
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server, pool())


def add_refusal(server: Any, text: str) -> None:
    """Adds handlers that answer every inference call with UNAVAILABLE and this text, for a process that serves no
    model."""

    async def refuse(messages: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, text)

    methods = pool().FindServiceByName(SERVICE).methods_by_name
    handlers = {name: grpc.stream_stream_rpc_method_handler(refuse) for name in methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def grpc_server(service: GrpcService, *, max_message_bytes: int) -> Any:
    """Creates a grpc.aio server with the inference service. It is not started and has no port yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
            # Two servers on one port would share its connections at random.
            ("grpc.so_reuseport", 0),
        ]
    )
    add_inference_service(server, service)
    return server
