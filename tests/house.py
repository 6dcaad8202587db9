"""A server without Ray for tests: engines with their models and both wires, on one event loop in a thread."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from models.spec import ModelSpec
from serving.api.entry import ModelEntry, State
from serving.api.grpc.aio import grpc_server
from serving.api.grpc.connection import GrpcListener
from serving.api.grpc.service import GrpcService
from serving.api.http.app import ModelApp
from serving.api.http.connection import fast_path
from serving.api.http.front import FrontApp
from serving.api.http.openapi.document import signature
from serving.api.metadata import served_statistics
from serving.api.operations import Operations
from serving.api.served import ServedModel
from serving.api.shared_memory.regions import Regions
from serving.cluster.replica.counting import QuotaRecorder
from serving.cluster.replica.describe import served_model
from serving.cluster.replica.engines import AnyEngine, open_engine
from serving.telemetry.recorder import Recorder
from tests.open_gate import OpenGate
from tests.patience import eventually

MAX_BODY_BYTES = 4 * 1024 * 1024


class PlainDoor:
    """The server of grpc.aio with the `open` and `close` of Headway's own."""

    def __init__(self, calls: GrpcService) -> None:
        self._server = grpc_server(calls, max_message_bytes=MAX_BODY_BYTES)

    async def open(self, host: str, port: int) -> int:
        taken: int = self._server.add_insecure_port(f"{host}:{port}")
        await self._server.start()
        return taken

    async def close(self) -> None:
        await self._server.stop(grace=None)


class House:
    """A running server. `http` and `grpc` are its addresses (host:port). Its thread owns `engines` and `recorders` (by
    model): tests only read them."""

    def __init__(
        self, specs: Sequence[ModelSpec], grpc_door: str, regions: Regions | None, offers: dict[str, Any]
    ) -> None:
        self._specs = specs
        self._grpc_door = grpc_door
        self._regions = regions
        self._quota = offers.pop("quota", None)
        self._pages = offers.pop("pages", None)
        self._witnesses = offers.pop("witnesses", ())
        self._offers = {"gate": OpenGate(), **offers}
        self.engines: dict[str, AnyEngine] = {}
        self.recorders: dict[str, Recorder] = {}
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run_thread)

    def open(self) -> "House":
        self._thread.start()
        assert self._up.wait(60)
        if self._failure is not None:
            raise self._failure
        return self

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def until(self, condition: Callable[[], bool], patience_s: float = 10) -> None:
        """Waits until the condition holds; fails after `patience_s` seconds."""
        eventually(condition, patience_s=patience_s, every_s=0.005)

    def _run_thread(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._failure = error
        finally:
            self._up.set()

    async def _run(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        served = [await self._serve(spec) for spec in self._specs]
        apps = {model.name: ModelApp(model, gate=self._offers["gate"]) for model in served}

        async def status() -> list[ModelEntry]:
            return [_entry(model) for model in served]

        async def counts() -> list[dict[str, object]]:
            return [await served_statistics(model) for model in served]

        operations = Operations(status, counts=counts, regions=self._regions, **self._offers)
        http = uvicorn.Server(
            uvicorn.Config(
                FrontApp(operations, apps=apps, pages=self._pages),
                http=fast_path(apps[served[0].name]),
                ws="none",
                log_config=None,
                access_log=False,
            )
        )
        calls = GrpcService(served, operations)
        fast = GrpcListener(calls, max_message_bytes=MAX_BODY_BYTES)
        listener = fast if self._grpc_door == "fast" else PlainDoor(calls)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.http = f"127.0.0.1:{taken.getsockname()[1]}"
            self.grpc = f"127.0.0.1:{await listener.open('127.0.0.1', 0)}"
            serving = asyncio.create_task(http.serve(sockets=[taken]))
            self._up.set()  # clients that connect now wait in the socket's backlog
            await self._end.wait()
            await listener.close()
            http.should_exit = True
            await serving
        for engine in self.engines.values():
            await engine.drain(timeout_s=1)
            engine.close()

    async def _serve(self, spec: ModelSpec) -> ServedModel:
        quota = self._quota
        recorder = self.recorders[spec.name] = Recorder() if quota is None else QuotaRecorder((), quota)
        engine = self.engines[spec.name] = await open_engine(spec, observer=recorder)
        switches = self._offers.get("switches")
        trace = None if switches is None else partial(switches.trace, model=spec.name)
        more = {"regions": self._regions, "trace": trace, "quota": quota}
        return served_model(engine, MAX_BODY_BYTES, dict, self._witnesses, **more)


def _entry(model: ServedModel) -> ModelEntry:
    state: State = "READY" if model.backend.is_ready() else "UNAVAILABLE"
    return ModelEntry(name=model.name, version=model.version, state=state, signature=signature(model))


@contextmanager
def house(*specs: ModelSpec, grpc_door: str = "fast", regions: Regions | None = None, **offers: Any) -> Iterator[House]:
    """Runs a server with these models. offers: `control`, `switches` and `gate` of `Operations`, without a gate every
    caller is authorized; `pages` of `FrontApp`; `quota` and `witnesses` of `ServedModel`."""
    running = House(specs, grpc_door, regions, offers).open()
    try:
        yield running
    finally:
        running.close()
