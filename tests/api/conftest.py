"""Fixtures: a real uvicorn in a thread, on a loopback port, with the applications and a backend without a model; and a
real browser for the pages."""

import asyncio
import importlib
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import tritonclient.http
import uvicorn

from serving.api.entry import ModelEntry
from serving.api.http.app import ModelApp
from serving.api.http.connection import fast_path
from serving.api.http.front import FrontApp
from serving.api.metadata import served_statistics
from serving.api.operations import Operations
from serving.api.served import ServedModel
from serving.protocol.messages import TensorDescription
from serving.testing.backend import EchoBackend
from tests.api.triton_clients import connect
from tests.open_gate import OpenGate


def model(name: str, *tensors: tuple[str, str, tuple[int, ...]], backend: EchoBackend, **more: Any) -> ServedModel:
    """Returns a model whose outputs are its inputs. tensors: name, datatype and shape of each."""
    described = tuple(TensorDescription(*tensor) for tensor in tensors)
    more.setdefault("outputs", described)
    return ServedModel(name=name, inputs=described, backend=backend, **more)


def operations_of(models: Sequence[ServedModel], **more: Any) -> Operations:
    """Returns the operations of a server with these models."""

    async def status() -> list[ModelEntry]:
        return [
            ModelEntry(
                name=served.name,
                version=served.version,
                state="READY" if served.backend.is_ready() else "UNAVAILABLE",
            )
            for served in models
        ]

    async def counts() -> list[dict[str, object]]:
        return [await served_statistics(served) for served in models]

    return Operations(status, counts=counts, **{"gate": OpenGate(), **more})


class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is not read: its own types are loose
    def __init__(self, app: object, *, http: Any, loop: str) -> None:
        super().__init__(uvicorn.Config(app, http=http, loop=loop, ws="none", log_config=None, access_log=False))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.run, kwargs={"sockets": [self.socket]})
        self._up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._up.set()

    async def main_loop(self) -> None:
        """Waits for `close` instead of polling every 0.1 s, which would slow hundreds of tests."""
        await self.on_tick(0)
        await self._end.wait()

    def open(self) -> "Server":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.socket.close()


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Yields a function that starts a server for given models behind a front; all are stopped at the end."""
    servers: list[Server] = []

    def start(
        models: Sequence[ServedModel],
        *,
        http: str = "short",
        loop: str = "uvloop",
        tenant_header: str = "",
        **more: object,
    ) -> Server:
        """Starts a server.

        http: uvicorn's protocol, or "short" for the fast path for plain requests to the first model.
        more: arguments of `Operations`.
        """
        apps = {served.name: ModelApp(served, tenant_header=tenant_header) for served in models}

        protocol = fast_path(apps[models[0].name]) if http == "short" else http
        front = FrontApp(operations_of(models, **more), apps=apps)
        servers.append(Server(front, http=protocol, loop=loop).open())
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Callable[..., Server]]:
    """Like `serving`, but once per file: for tests that leave no state in the server."""
    with serving() as start:
        yield start


@pytest.fixture(params=["http", "grpc"])
def wire(request: pytest.FixtureRequest) -> Any:
    """The module of Triton's client for a wire, HTTP or gRPC."""
    return importlib.import_module(f"tritonclient.{request.param}")


@pytest.fixture
def triton(served: Any, wire: Any) -> Iterator[Any]:
    """Triton's client of the file's server. Unregisters all regions after the test."""
    with connect(served, wire, **({"concurrency": 2} if wire is tritonclient.http else {})) as client:
        yield client
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium, driven by Playwright. Tests that need it are skipped if one of the two is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser tests: pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no browser tests: install Chromium (Debian: chromium)")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
