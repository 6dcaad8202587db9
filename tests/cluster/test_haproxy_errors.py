"""Tests the answers of the real HAProxy to clients if the processes behind it end, without Ray."""

import http.client
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from serving.api.grpc.service import INFER
from serving.cluster.environment import ray_environment
from serving.cluster.haproxy.command import keys
from serving.cluster.haproxy.editing import edited
from serving.cluster.haproxy.errors import with_clear_errors
from serving.config import Settings
from serving.port_ranges import FAST_GRPC_DISTANCE
from tests.api.test_grpc_connection import infer
from tests.cluster.conftest import haproxy_binary
from tests.patience import eventually

SETTINGS = {
    "models": [
        {
            "name": "m",
            "factory": "models.reference:noop",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 1]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
        }
    ]
}
CONFIG = """\
global
    tune.bufsize {buffer}
defaults
    mode http
    timeout client 10s
    timeout connect 1s
    timeout server 10s
    option redispatch 1
    retry-on {retry_on}
    retries {retries}
    errorfile 502 /nowhere/500.http
    errorfile 503 /nowhere/500.http
    errorfile 504 /nowhere/500.http
frontend http_frontend
    bind fd@{http}
    default_backend http-m
backend http-m
{servers}
frontend grpc_frontend
    bind fd@{grpc} proto h2
    mode http
    acl is_grpc-m req.hdr(application) -m str m
    use_backend grpc-m if is_grpc-m
    default_backend default_grpc_backend
backend grpc-front
    mode http
    server f1 127.0.0.1:1 proto h2
backend grpc-m
    mode http
{grpc_servers}
"""


class Mortal:
    """A process that ends when it gets a request: it closes the connection without an answer and accepts no other."""

    def __init__(self, *, first_bytes: int = 1) -> None:
        """first_bytes: how many bytes have to arrive before it ends; HTTP/2 begins with frames that are no request."""
        self._first_bytes = first_bytes
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.killed = False
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def end(self) -> None:
        """Ends the process, even if it has got no request."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join()

    def _live(self) -> None:
        try:
            connection, _ = self.socket.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"\0\0\0\4\0\0\0\0\0" if self._first_bytes > 1 else b"")  # HTTP/2's settings
            got = b""
            while len(got) < self._first_bytes and (more := connection.recv(65536)):
                got += more
            self.killed = True
            self.socket.close()


class Behind:
    """HAProxy in front of four mortal replicas of a model, for each wire."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.over_http = [Mortal() for _ in range(4)]
        self.over_grpc = [Mortal(first_bytes=300) for _ in range(4)]
        for one in (*self.over_http, *self.over_grpc):
            stack.callback(one.end)
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        self.http_port, self.grpc_port = (one.getsockname()[1] for one in taken)
        http_fd, grpc_fd = (one.fileno() for one in taken)
        environment = ray_environment(Settings.model_validate(SETTINGS), haproxy=True)
        text = CONFIG.format(
            buffer=environment["RAY_SERVE_HAPROXY_TUNE_BUFSIZE"],
            retry_on=environment["RAY_SERVE_HAPROXY_RETRY_ON"],
            retries=environment["RAY_SERVE_HAPROXY_RETRIES"],
            http=http_fd,
            grpc=grpc_fd,
            servers="\n".join(f"    server s{i} 127.0.0.1:{one.port}" for i, one in enumerate(self.over_http)),
            grpc_servers="\n".join(
                f"    server s{i} 127.0.0.1:{one.port - FAST_GRPC_DISTANCE} proto h2"
                for i, one in enumerate(self.over_grpc)
            ),
        )
        config = folder / "haproxy.cfg"
        config.write_text(with_clear_errors(edited(text), folder))
        command = [haproxy_binary(), "-db", "-f", str(config)]
        self.process = subprocess.Popen(command, pass_fds=(http_fd, grpc_fd), env=os.environ | keys())
        stack.callback(self.process.wait)
        stack.callback(self.process.terminate)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    with ExitStack() as stack:
        yield Behind(tmp_path, stack)


def asked(port: int, body: bytes, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v2/models/m/infer", body, headers)
    answer = connection.getresponse()
    answered = {name.lower(): value for name, value in answer.getheaders()}
    error = json.loads(answer.read())["error"]
    connection.close()
    return answer.status, answered, error


def test_a_request_that_ends_its_process_is_given_to_one_more_and_then_to_none(behind: Behind) -> None:
    status, headers, error = asked(behind.http_port, b"deadly", **{"x-request-id": 'my "id" \u00e9'})
    eventually(lambda: sum(one.killed for one in behind.over_http), lambda killed: killed >= 2)
    assert sum(one.killed for one in behind.over_http) == 2
    assert status == 500
    assert "retry-after" not in headers
    assert "do not repeat it" in error
    assert 'my "id"' in error


def test_one_that_does_not_fit_to_be_repeated_ends_one_process_and_invites_nobody(behind: Behind) -> None:
    status, headers, error = asked(behind.http_port, b"x" * 100_000, **{"x-request-id": "large"})
    assert sum(one.killed for one in behind.over_http) == 1
    assert (status, headers["x-request-id"]) == (502, "large")
    assert "retry-after" not in headers
    assert "tries after the first: 0" in error


def test_over_grpc_it_is_the_same_with_a_code_that_retry_policies_do_not_repeat(behind: Behind) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{behind.grpc_port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(INFER)(infer(2)[5:], timeout=20, metadata=[("application", "m"), ("x-request-id", "it")])
    assert sum(one.killed for one in behind.over_grpc) == 2
    assert refused.value.code() is grpc.StatusCode.INTERNAL, refused.value
    assert "x-request-id: 'it'" in refused.value.details()
    metadata = {**dict(refused.value.initial_metadata() or ()), **dict(refused.value.trailing_metadata() or ())}
    assert metadata["grpc-retry-pushback-ms"] == "-1"


def test_where_nobody_can_be_reached_it_is_worth_trying_again(behind: Behind) -> None:
    for one in behind.over_http:
        one.end()
    status, headers, error = asked(behind.http_port, b"harmless")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "try again" in error
