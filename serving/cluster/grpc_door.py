"""gRPC's way into this replica: our own handlers on the gRPC server that Ray Serve starts.

Ray Serve calls `add_inference_service` (named in `grpc_options`) in every process that starts such a server. In a
replica it adds the service that the replica registered before, and none of Ray's own work per call is done for it: 922
microseconds of it at last count. In Ray's proxy, which HAProxy asks only while no replica is there, calls are told so.
"""

import asyncio
import logging
from typing import Any

from serving.api.grpc import add_inference_service as add
from serving.api.grpc import add_refusal
from serving.api.grpc_service import GrpcService
from serving.protocol.pb import HEALTH, SERVICE

PASSED_THROUGH = (SERVICE, HEALTH, "grpc.reflection.v1alpha.ServerReflection")
UNREACHABLE = "no replica of this model is reachable at the moment"
OTHER_LOOP = "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"

logger = logging.getLogger("ray.serve")


class GrpcEntrance:
    """The service of this process. One replica, one process, one service."""

    def __init__(self) -> None:
        self._service: GrpcService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def register(self, service: GrpcService) -> None:
        """Called on the service's event loop, before Ray Serve starts this replica's gRPC server."""
        self._service = service
        self._loop = asyncio.get_running_loop()

    def open(self) -> GrpcService | str:
        """The service, or why it cannot be reached here."""
        if self._service is None:
            return UNREACHABLE
        return self._service if asyncio.get_running_loop() is self._loop else OTHER_LOOP


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
