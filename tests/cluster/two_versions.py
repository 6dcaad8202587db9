"""A model with two versions behind the real HAProxy, without Ray: both wires, the front's routing table, its log."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc

from serving.api.entry import ModelEntry
from serving.api.grpc.service import GrpcService
from serving.api.http.app import FrontApp, ModelApp
from serving.api.http.connection import fast_path
from serving.api.operations import Operations
from serving.cluster.front.grpc_relay import GrpcRelay
from serving.cluster.front.routing import RouteControl
from serving.cluster.haproxy.command import REAL_BINARY
from serving.cluster.haproxy.following import TABLE
from serving.cluster.replica.http_door import HEALTHZ, FastDoor, keep_no_count
from serving.names import model_path
from serving.port_ranges import FAST_GRPC_DISTANCE
from serving.registry.log import ModelLog
from serving.testing.backend import EchoBackend
from serving.testing.objects import MemoryObjects
from serving.traffic.routes import Route, backend_of
from tests.api.conftest import Server, model, operations_of
from tests.api.grpc_serving import Served, grpc_serving
from tests.cluster.conftest import haproxy_binary
from tests.ports import free_port

SERVED = {"ranker": {"1": "ranker", "2": "ranker@2"}, "alone": {"1": "alone"}}
TENSOR = ("x", "FP32", (-1, 2))
INFER = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]})
# As Ray 2.60 writes it, as far as the edits look at it: the longest path first.
CONFIG = """\
global
    stats socket {folder}/admin.sock mode 666 level admin expose-fd listeners
    nbthread 1
defaults
    mode http
    timeout client 30s
    timeout connect 5s
    timeout server 30s
    option redispatch 1
    retry-on conn-failure empty-response
    retries 1
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend http_frontend
    bind 127.0.0.1:{http}
{http_acls}{http_uses}    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found"
{http_backends}frontend grpc_frontend
    bind 127.0.0.1:{grpc} proto h2
    mode http
{grpc_uses}    default_backend default_grpc_backend
backend default_grpc_backend
    mode http
{grpc_backends}"""


def config(folder: Path, http: int, grpc: int, servers: dict[str, tuple[str, int, int]]) -> str:
    """Returns what Ray would write. servers: by application its path, its port for HTTP, and its fast door's port for
    gRPC."""
    longest = sorted(servers.items(), key=lambda item: -len(item[1][0]))
    names = {name: backend_of(name) for name in servers}
    return CONFIG.format(
        folder=folder,
        http=http,
        grpc=grpc,
        http_acls="".join(
            f"    acl is_http-{names[name]} path_beg {path.rstrip('/')}/\n    acl is_http-{names[name]} path {path}\n"
            for name, (path, _, _) in longest
        ),
        http_uses="".join(f"    use_backend http-{names[name]} if is_http-{names[name]}\n" for name, _ in longest),
        http_backends="".join(
            f"backend http-{names[name]}\n    http-reuse always\n    option httpchk GET {HEALTHZ}\n"
            f"    server {names[name]}-1 127.0.0.1:{port} check inter 100ms fall 1\n"
            for name, (_, port, _) in longest
        ),
        grpc_uses="".join(
            f"    acl is_grpc-{names[name]} req.hdr(application) -m str {name}\n"
            f"    use_backend grpc-{names[name]} if is_grpc-{names[name]}\n"
            for name in servers
        ),
        grpc_backends="".join(
            f"backend grpc-{names[name]}\n    mode http\n"
            f"    server {names[name]}-1 127.0.0.1:{port - FAST_GRPC_DISTANCE} proto h2\n"
            for name, (_, _, port) in servers.items()
        ),
    )


async def entries() -> list[ModelEntry]:
    """Returns what the front knows of all versions."""
    return [
        ModelEntry(name=name, version=version, state="READY", application=application)
        for name, found in SERVED.items()
        for version, application in found.items()
    ]


class TwoVersions:
    """Versions 1 and 2 of `ranker`, one of `alone`, a front, and HAProxies in front of them.

    store: where the log of routes is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._replicas: dict[str, ExitStack] = {}
        self.store = MemoryObjects()
        self._environment = os.environ | {"HEADWAY_SECRET": "a secret of tests", REAL_BINARY: haproxy_binary()}

    def __enter__(self) -> "TwoVersions":
        self.processes: list[subprocess.Popen[bytes]] = []
        self.http_port, self.grpc_port = free_port(), free_port()
        servers: dict[str, tuple[str, int, int]] = {}
        for name, found in SERVED.items():
            for version, application in found.items():
                app = ModelApp(model(name, TENSOR, backend=EchoBackend(), version=version))
                door = FastDoor(
                    app, own=app, path=model_path(name), takes_requests=lambda: True, kept_out=keep_no_count
                )
                server: Any = Server(door, http=fast_path(app), loop="uvloop").open()
                self._replicas[application] = self._stack.enter_context(ExitStack())
                self._replicas[application].callback(server.close)
                served = model(name, TENSOR, backend=EchoBackend(), version=version)
                relay = GrpcRelay(f"127.0.0.1:{self.grpc_port}", "")
                serving = grpc_serving([served], door="fast", relay=relay)
                over_grpc = self._replicas[application].enter_context(serving)
                path = model_path(name) + (f"/versions/{version}" if application != name else "")
                servers[application] = (path, server.port, over_grpc.port)
        self._open_front(servers)
        self.config = config(self._folder, self.http_port, self.grpc_port, servers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            process.terminate()
            process.wait(20)
        self.close_front()
        self._stack.close()

    def _open_front(self, servers: dict[str, tuple[str, int, int]]) -> None:
        self.control = RouteControl(lambda name: ModelLog(self.store, name))
        operations: Operations = operations_of([], routes=self.control)
        app = FrontApp(operations, pages=self.control.pages())
        door = FastDoor(app, own=app, path="", takes_requests=lambda: True, kept_out=keep_no_count)
        front: Any = Server(door, http="auto", loop="uvloop").open()
        self._front = self._stack.enter_context(ExitStack())
        self._front.callback(front.close)
        self._loop: asyncio.AbstractEventLoop = front._loop
        self._loop.call_soon_threadsafe(self.control.serve, SERVED)
        relay = GrpcRelay(f"127.0.0.1:{self.grpc_port}", "")
        over_grpc = Served(GrpcService([], Operations(entries), relay=relay), "fast").open()
        self._front.callback(over_grpc.close)
        servers["front"] = ("/", front.port, over_grpc.port)

    def know(self) -> None:
        """Reads the logs, as the front does every second."""
        asyncio.run_coroutine_threadsafe(self.control.look(), self._loop).result(10)

    def set(self, stable: str, candidate: str | None = None, share: int = 0) -> Route:
        asked = self.control.set("ranker", stable=stable, candidate=candidate, share=share, by="a test")
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(10)

    def table(self, name: str = "one") -> str:
        """Returns the file of HAProxy's map: what the HAProxy of this folder has been told."""
        return (self._folder / name / TABLE).read_text()

    def said(self, name: str = "one") -> str:
        """Returns what HAProxy has logged."""
        return (self._folder / name / "stderr").read_text()

    def end_replicas(self, application: str) -> None:
        """Ends the replica of an application."""
        self._replicas.pop(application).close()

    def close_front(self) -> None:
        if not self._loop.is_closed():
            # Ends the request that HAProxy's script holds open.
            self._loop.call_soon_threadsafe(self.control.serve, {"other": {"1": "other", "2": "other@2"}})
        self._front.close()

    def client(self, port: int | None = None) -> "Client":
        client = Client(port or self.http_port)
        self._stack.callback(client.close)
        return client

    def start(self, *arguments: str, name: str = "one", port: int | None = None) -> "subprocess.Popen[bytes]":
        """Starts HAProxy by our command, as Ray does. name: of its folder. port: for HTTP, if not the first one's."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        path = folder / "haproxy.cfg"
        path.write_text(self.config.replace(f":{self.http_port}\n", f":{port or self.http_port}\n"))
        command = [sys.executable, "-m", "serving.cluster.haproxy.command", "-db", "-f", str(path), *arguments]
        with (folder / "stderr").open("ab") as said:
            process = subprocess.Popen(command, env=self._environment, stderr=said)
        self.processes.append(process)
        return process


def over_grpc(port: int, version: str = "", key: str = "", **more: str) -> str:
    """Returns the version that answers a call."""
    given = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
    given.set_data_from_numpy(np.ones((1, 2), np.float32))
    headers = {"x-routing-key": key} if key else {}
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{port}") as connected:
        answer = connected.infer("ranker", [given], model_version=version, headers=headers, **more)
        return str(answer.get_response().model_version)


class Client:
    """A client of HAProxy over HTTP, with one connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(self, path: str = "/v2/models/ranker/infer", body: str = INFER, **headers: str) -> tuple[int, Any]:
        """Returns the status and the JSON of the answer. headers: with `_` for `-`."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("POST", path, body, sent)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def version(self, **headers: str) -> str:
        """Returns the version that answers a request which names none."""
        status, answer = self.ask(**headers)
        assert status == 200, answer
        return str(answer["model_version"])

    def is_answered(self) -> bool:
        try:
            return self.ask()[0] == 200
        except OSError:
            self._connection.close()
            return False

    def close(self) -> None:
        self._connection.close()
