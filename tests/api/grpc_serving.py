"""Runs a real gRPC server (grpc.aio's or the fast door) on a loopback port, in a thread, with an echoing backend."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from serving.api.grpc.aio import grpc_server
from serving.api.grpc.connection import GrpcListener
from serving.api.grpc.service import GrpcService
from serving.api.served import ServedModel
from tests.api.conftest import operations_of

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def service_of(models: Sequence[ServedModel], **more: Any) -> GrpcService:
    known = {name: more.pop(name) for name in ("regions", "control", "switches", "name") if name in more}
    return GrpcService(models, operations_of(models, **known), **more)


class Served:
    """A server in a thread. door: "plain" for grpc.aio's, "fast" for the project's own. loop: the server's event loop,
    on which its backends must be used. port, address: where it listens."""

    def __init__(self, service: GrpcService, door: str) -> None:
        self._service = service
        self._door = door
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        if self._door == "plain":
            server = grpc_server(self._service, max_message_bytes=MAX_MESSAGE_BYTES)
            self.port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
        else:
            listener = GrpcListener(self._service, max_message_bytes=MAX_MESSAGE_BYTES)
            self.port = await listener.open("127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.port}"
        self._up.set()
        await self._end.wait()
        if self._door == "plain":
            await server.stop(grace=None)
        else:
            await listener.close()

    def open(self) -> "Served":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def grpc_serving(models: Sequence[ServedModel], *, door: str = "plain", **more: object) -> Iterator[Served]:
    served = Served(service_of(models, **more), door).open()
    try:
        yield served
    finally:
        served.close()
