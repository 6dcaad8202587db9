"""Tests the bound on requests in flight with the real HAProxy, both doors of a replica and Triton's clients, without
Ray."""

import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from serving.api.admission.bound import EVERY, HEADER, Bound
from serving.api.http.app import ModelApp
from serving.api.http.connection import fast_path
from serving.cluster.haproxy.command import keys
from serving.cluster.haproxy.intake import CREDENTIAL, LUA, SCRIPT, bounded
from serving.cluster.replica.http_door import HEALTHZ, FastDoor
from serving.core.intake import UNBOUNDED
from serving.core.outcome import Reason
from serving.names import model_path
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model
from tests.api.grpc_serving import grpc_serving
from tests.cluster.conftest import haproxy_binary
from tests.patience import eventually

PLACES = 2
# One thread: each learns the bound from its own answers, and another may count a request that has just been answered.
CONFIG = """\
global
    nbthread 1
    stats timeout 30s
defaults
    mode http
    timeout client 60s
    timeout connect 60s
    timeout server 60s
frontend anyone
    bind fd@{listener}{proto}
    default_backend {wire}-m
backend {wire}-m
    {check}
    server m {address}{proto} check inter 20ms
    server other {address}{proto} backup
"""


class Line:
    """A model that holds its answers, a door in front of it, HAProxy in front of that, and clients of one wire."""

    def __init__(
        self,
        wire: str,
        folder: Path,
        stack: ExitStack,
        *,
        config: str = CONFIG,
        header: str = "x-tenant",
        hold_ms: int = 0,
    ) -> None:
        self.wire = wire
        self._header = header
        self.backend = EchoBackend()
        self.places = PLACES
        served = model("m", ("x", "FP32", (-1, 2)), backend=self.backend, bound=Bound(lambda: self.places, hold_ms))
        self.kept_out: list[int] = []
        if wire == "http":
            app = ModelApp(served, tenant_header="x-tenant")
            path = model_path("m")
            door = FastDoor(app, own=app, path=path, takes_requests=lambda: True, kept_out=self.kept_out.append)
            server: Any = Server(door, http=fast_path(app), loop="uvloop").open()
            stack.callback(server.close)
            self._loop = server._loop
        else:
            server = stack.enter_context(grpc_serving([served], door="fast", tenant_header="x-tenant"))
            self._loop = server.loop
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        path, script = folder / "haproxy.cfg", folder / SCRIPT
        script.write_text(LUA)
        proto = " proto h2" if wire == "grpc" else ""
        check = f"option httpchk GET {HEALTHZ}" if wire == "http" else ""
        text = config.format(listener=listener.fileno(), proto=proto, wire=wire, address=server.address, check=check)
        path.write_text(bounded(text, str(script), header))
        command = [haproxy_binary(), "-db", "-f", str(path)]
        haproxy = subprocess.Popen(command, pass_fds=(listener.fileno(),), env=os.environ | keys())
        stack.callback(haproxy.wait)
        stack.callback(haproxy.terminate)
        self._address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._client: Any = tritonclient.http if wire == "http" else tritonclient.grpc
        self._threads = stack.enter_context(ThreadPoolExecutor(16))
        stack.callback(self.release)

    def ask(self, tenant: str = "") -> "Future[Any]":
        """Sends a request in a thread, with a client of its own."""
        return self._threads.submit(self._ask, {self._header: tenant} if tenant else {})

    def _ask(self, headers: dict[str, str]) -> Any:
        with self._client.InferenceServerClient(self._address) as client:
            given = self._client.InferInput("x", [1, 2], "FP32")
            given.set_data_from_numpy(np.ones((1, 2), np.float32))
            return client.infer("m", [given], headers=headers)

    def connect(self) -> socket.socket:
        host, port = self._address.split(":")
        return socket.create_connection((host, int(port)))

    def know(self, tenant: str = "") -> None:
        """Sends as many requests as it takes for HAProxy to be told the bound."""
        for _ in range(EVERY):
            self.ask(tenant).result()

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self.backend.release)

    def fill(self, tenant: str = "") -> "list[Future[Any]]":
        """Fills all places with requests of a tenant, which wait for `release`."""
        self.backend.hold()
        held = [self.ask(tenant) for _ in range(PLACES)]
        eventually(lambda: self.backend.waiting, partial(int.__eq__, PLACES))
        return held


@pytest.fixture(params=["http", "grpc"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    with ExitStack() as stack:
        yield Line(request.param, tmp_path, stack)


def test_a_request_for_which_there_is_no_place_is_refused_at_once_and_the_others_are_answered(line: Line) -> None:
    line.know()
    held = line.fill()
    with pytest.raises(InferenceServerException, match="as many requests as they can in time; retry later") as refused:
        line.ask().result()
    assert refused.value.status() in ("503", "StatusCode.UNAVAILABLE")
    if line.wire == "http":  # HAProxy's checks of this wire tell the replica
        eventually(lambda: sum(line.kept_out), partial(int.__eq__, 1))
    line.release()
    for one in held:
        assert one.result().as_numpy("x").tolist() == [[1, 1]]
    assert line.ask().result().as_numpy("x").tolist() == [[1, 1]]


def test_a_refusal_is_held_back_for_the_time_that_the_replica_names(tmp_path: Path) -> None:
    with ExitStack() as stack:
        line = Line("http", tmp_path, stack, header="", hold_ms=3_600_000)
        line.know()
        held = line.fill()
        client = stack.enter_context(line.connect())
        body = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,1]}]}'
        client.sendall(b"POST %b/infer HTTP/1.1\r\nhost: m\r\n" % model_path("m").encode())
        client.sendall(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        eventually(lambda: sum(line.kept_out), partial(int.__eq__, 1))  # it is refused
        line.release()
        for one in held:
            assert one.result().as_numpy("x").tolist() == [[1, 1]]
        assert line.ask().result().as_numpy("x").tolist() == [[1, 1]]
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_a_tenant_below_its_share_waits_for_the_next_place(line: Line) -> None:
    line.know(tenant="flood")
    held = line.fill(tenant="flood")
    calm = line.ask(tenant="calm")
    with pytest.raises(InferenceServerException, match="retry later"):
        line.ask(tenant="flood").result()
    assert not calm.done()
    line.release()
    assert [one.result().as_numpy("x").tolist() for one in (*held, calm)] == 3 * [[[1, 1]]]


def test_a_tenant_that_has_its_share_leaves_the_last_places_to_the_others(line: Line) -> None:
    line.places = 9
    for tenant in ("calm", "flood"):
        line.know(tenant)
    line.backend.hold()
    held = [line.ask("flood") for _ in range(8)]
    eventually(lambda: line.backend.waiting, partial(int.__eq__, 8))
    with pytest.raises(InferenceServerException, match="as many requests as they can in time"):
        line.ask("flood").result()
    held.append(line.ask("calm"))
    eventually(lambda: line.backend.waiting, partial(int.__eq__, 9))  # it did not have to wait for a place
    line.release()
    for one in held:
        one.result()


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_where_callers_have_credentials_each_of_them_has_a_share(wire: str, tmp_path: Path) -> None:
    token = f"Bearer {'e' * 100}"  # tokens of one provider begin with the same characters
    with ExitStack() as stack:
        line = Line(wire, tmp_path, stack, header=CREDENTIAL)
        line.know(tenant=f"{token}.flood")
        held = line.fill(tenant=f"{token}.flood")
        calm = line.ask(tenant=f"{token}.calm")
        with pytest.raises(InferenceServerException, match="retry later"):
            line.ask(tenant=f"{token}.flood").result()
        assert not calm.done()
        line.release()
        assert [one.result().as_numpy("x").tolist() for one in (*held, calm)] == 3 * [[[1, 1]]]


def test_the_bound_can_be_lifted(line: Line) -> None:
    line.know()
    line.places = UNBOUNDED
    line.know()
    held = line.fill()
    held.append(line.ask())
    eventually(lambda: line.backend.waiting, partial(int.__eq__, PLACES + 1))
    line.release()
    assert [one.result().as_numpy("x").tolist() for one in held] == 3 * [[[1, 1]]]


@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_a_model_without_replicas_is_not_called_overloaded(wire: str, tmp_path: Path) -> None:
    """The requests of a sleeping model go to the backup, Ray's proxy; without it, nobody can be reached."""
    asleep = CONFIG.replace("check inter 20ms", "disabled")
    with ExitStack() as stack:
        line = Line(wire, tmp_path, stack, config=asleep)
        assert line.ask().result().as_numpy("x").tolist() == [[1, 1]]
    with ExitStack() as stack:
        line = Line(wire, tmp_path, stack, config=asleep.replace(" backup", " backup disabled"))
        with pytest.raises(InferenceServerException) as refused:
            line.ask().result()
        assert Reason.OVERLOAD.value not in str(refused.value)


def test_clients_do_not_see_the_bound(line: Line) -> None:
    for _ in range(EVERY):
        answer = line.ask().result().get_response()
        assert HEADER.decode() not in str(answer).lower()


def test_a_configuration_is_bounded_once_and_only_for_models() -> None:
    config = "global\nbackend http-front\n    server f 1:1\nbackend http-m\n    server a 1:1\n    server b 1:2 backup\n"
    edited = bounded(config, "/a/headway-intake.lua", "x-tenant")
    assert edited.count(" maxconn ") == 2
    assert edited.startswith(
        "global\n    lua-load-per-thread /a/headway-intake.lua\nbackend http-front\n    server f 1:1\n"
    )
    assert f"    server a 1:1 maxconn {UNBOUNDED}\n    server b 1:2 backup maxconn {UNBOUNDED}\n" in edited
    assert "srv_conn(http-m/a),add(txn.places)" in edited
    assert "srv_conn(http-m/b)" not in edited  # a backup's places do not count among those that are free
    assert bounded(edited, "/a/headway-intake.lua", "x-tenant") == edited
