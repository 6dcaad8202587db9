"""The two doors for gRPC calls into this replica.

Ray Serve calls `add_inference_service` (named in `grpc_options`) in every process that starts a gRPC server of Ray's.
In a replica it adds our handlers to that server: the plain door, which needs only Ray, and skips Ray's own work per
call. It also opens the fast door on a port of its own (`ports.py`): HTTP/2 without gRPC's runtime
(`api/grpc/connection.py`). HAProxy sends calls to the fast door while it is open. In Ray's proxy, to which HAProxy
sends calls only while there is no replica, calls get an error that says so.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray._common.network_utils import get_localhost_ip
from ray.util import get_node_ip_address

from serving.api.faults import CallFailed, Fault
from serving.api.grpc.aio import add_inference_service as add
from serving.api.grpc.aio import add_refusal
from serving.api.grpc.connection import GrpcListener
from serving.api.grpc.service import GrpcService
from serving.cluster.ports import addresses, fast_port, listening_ports
from serving.protocol.pb import HEALTH, SERVICE

HEALTHZ = "/ray.serve.RayServeAPIService/Healthz"  # where Ray's HAProxy configuration asks
HEALTHY = b"\n\x07success"  # its answer as protobuf: field 1, the text that HAProxy looks for
PASSED_THROUGH = (SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection")
UNREACHABLE = "no replica of this model is reachable at the moment"
OTHER_LOOP = "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"

logger = logging.getLogger("ray.serve")


class GrpcEntrance:
    """The gRPC service of this process. A process holds one replica, so it has one service."""

    def __init__(self) -> None:
        self._service: GrpcService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._takes_requests: Callable[[], bool] = bool
        self._max_message_bytes: int | None = None
        self._opening: asyncio.Task[None] | None = None
        self.door = "plain"

    def register(
        self,
        service: GrpcService,
        *,
        takes_requests: Callable[[], bool] = lambda: True,
        max_message_bytes: int | None = None,
    ) -> None:
        """Called on the service's event loop, before Ray Serve starts this replica's gRPC server.

        takes_requests: returns whether HAProxy may send calls to the fast door.
        max_message_bytes: the largest message at the fast door; None: opens no fast door.
        """
        self._service = service
        self._takes_requests = takes_requests
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._ports_before = listening_ports()

    def open(self) -> GrpcService | str:
        """Returns the service, or the reason why it cannot be reached in this process or on this event loop."""
        if self._service is None:
            return UNREACHABLE
        return self._service if asyncio.get_running_loop() is self._loop else OTHER_LOOP

    def open_fast_door(self) -> None:
        """Opens the fast door in a task. If that fails, logs the reason, and calls come through the plain door."""
        if self._max_message_bytes is not None:
            self._opening = asyncio.get_running_loop().create_task(self._open_fast_door(self._max_message_bytes))

    async def _open_fast_door(self, max_message_bytes: int) -> None:
        assert self._service is not None
        port = fast_port(self._ports_before)
        if port is None:
            logger.warning("gRPC by the plain door only: Ray's gRPC port of this replica cannot be told")
            return
        others = {HEALTHZ: self._answer_check}
        listener = GrpcListener(self._service, max_message_bytes=max_message_bytes, others=others)
        try:
            await listener.open(addresses(get_localhost_ip(), get_node_ip_address()), port)
        except OSError as error:
            logger.warning("gRPC by the plain door only: port %d: %s", port, error)
        else:
            self._listener = listener
            self.door = "fast"
            logger.info("fast door for gRPC open on port %d", port)

    async def _answer_check(self, message: bytes) -> bytes:
        """Answers HAProxy's health check as the HTTP door does, see `http_door.py`."""
        if not self._takes_requests():
            raise CallFailed(Fault(503, "takes no requests"))
        return HEALTHY


entrance = GrpcEntrance()


def add_inference_service(servicer: object, server: Any) -> None:
    """Adds our handlers to a gRPC server of Ray's. Ray Serve calls it on the server's event loop.

    servicer: a placeholder of Ray's."""
    opened = entrance.open()
    for name in PASSED_THROUGH:
        server.add_passthrough_service(name)
    if isinstance(opened, str):
        logger.info("no gRPC here: %s", opened)
        add_refusal(server, opened)
    else:
        add(server, opened)
        entrance.open_fast_door()
