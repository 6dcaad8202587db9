"""gRPC's two doors into this replica.

Ray Serve calls `add_inference_service` (named in `grpc_options`) in every process that starts a gRPC server of its own.
In a replica it adds our handlers to that server: the plain door, which needs nothing but Ray, and for which none of
Ray's own work per call is done. Beside it the fast door is opened, on a port of its own (`ports.py`), where HAProxy
sends the calls as long as it is open: HTTP/2 without gRPC's runtime (`api/grpc_connection.py`). In Ray's proxy, which
HAProxy asks only while no replica is there, calls are told so.
"""

import asyncio
import logging
from typing import Any

import grpc

from serving.api.faults import CallFailed, fault_of_grpc
from serving.api.grpc import add_inference_service as add
from serving.api.grpc import add_refusal
from serving.api.grpc_connection import GrpcListener
from serving.api.grpc_service import GrpcService
from serving.cluster.ports import DISTANCE, fast_port, listening_ports
from serving.direct import GRPC_OPTIONS
from serving.protocol.pb import HEALTH, SERVICE

HEALTHZ = "/ray.serve.RayServeAPIService/Healthz"
PASSED_THROUGH = (SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection")
UNREACHABLE = "no replica of this model is reachable at the moment"
OTHER_LOOP = "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"

logger = logging.getLogger("ray.serve")


class GrpcEntrance:
    """The service of this process. One replica, one process, one service."""

    def __init__(self) -> None:
        self._service: GrpcService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._max_message_bytes: int | None = None
        self._opening: asyncio.Task[None] | None = None
        self.door = "plain"

    def register(self, service: GrpcService, *, max_message_bytes: int | None = None) -> None:
        """Called on the service's event loop, before Ray Serve starts this replica's gRPC server. max_message_bytes: of
        the fast door; without it there is none."""
        self._service = service
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._ports_before = listening_ports()

    def open(self) -> GrpcService | str:
        """The service, or why it cannot be reached here."""
        if self._service is None:
            return UNREACHABLE
        return self._service if asyncio.get_running_loop() is self._loop else OTHER_LOOP

    def open_fast_door(self) -> None:
        """In the background; what keeps it shut is logged, and calls come through the plain one."""
        if self._max_message_bytes is not None:
            self._opening = asyncio.get_running_loop().create_task(self._open_fast_door(self._max_message_bytes))

    async def _open_fast_door(self, max_message_bytes: int) -> None:
        assert self._service is not None
        port = fast_port(self._ports_before)
        if port is None:
            logger.warning("gRPC by the plain door only: Ray's gRPC port of this replica cannot be told")
            return
        healthz = RayHealth(port - DISTANCE)
        listener = GrpcListener(self._service, max_message_bytes=max_message_bytes, others={HEALTHZ: healthz})
        try:
            await listener.open(None, port)
        except OSError as error:
            logger.warning("gRPC by the plain door only: port %d: %s", port, error)
        else:
            self._listener = listener
            self.door = "fast"
            logger.info("fast door for gRPC open on port %d", port)


class RayHealth:
    """Ray Serve's own health call, answered with what Ray's server beside us says: HAProxy then stops sending here too
    when the replica is about to go."""

    def __init__(self, port: int) -> None:
        self._ask = grpc.aio.insecure_channel(f"127.0.0.1:{port}", GRPC_OPTIONS).unary_unary(HEALTHZ)

    async def __call__(self, message: bytes) -> bytes:
        try:
            answer: bytes = await self._ask(message, timeout=2)
        except grpc.aio.AioRpcError as error:
            raise CallFailed(fault_of_grpc(error.code().value[0], error.details() or "")) from None
        return answer


entrance = GrpcEntrance()


def add_inference_service(servicer: object, server: Any) -> None:
    """Called by Ray Serve on the event loop of the server; servicer: a stand-in of Ray's."""
    opened = entrance.open()
    for name in PASSED_THROUGH:
        server.add_passthrough_service(name)
    if isinstance(opened, str):
        logger.info("no gRPC here: %s", opened)
        add_refusal(server, opened)
    else:
        add(server, opened)
        entrance.open_fast_door()
