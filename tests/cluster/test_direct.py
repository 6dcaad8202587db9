"""Tests that requests to our own servers do not go through the proxy of the environment's variables."""

import socket
from collections.abc import Iterator

import pytest

from models.reference import linear_spec
from serving.cluster.probes import answers, is_ready_over_grpc
from serving.operate.launch import get_json
from serving.top import look
from tests.house import House, house

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A proxy that never answers; connections to it stay in its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(0)
        for name in (*VARIABLES, *map(str.upper, VARIABLES)):
            monkeypatch.setenv(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield taken
        with pytest.raises(BlockingIOError):
            taken.accept()


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(linear_spec()) as running:
        yield running


def test_probes_of_the_start_reach_the_server(proxy: socket.socket, served: House) -> None:
    assert answers(f"http://{served.http}/v2/health/ready")
    assert is_ready_over_grpc(served.grpc, "linear")
    assert get_json(f"http://{served.http}/v2/models/linear")["name"] == "linear"


def test_headway_top_reaches_the_server(proxy: socket.socket, served: House) -> None:
    with pytest.raises(OSError, match="404"):  # this test server has no such page, but it answers
        look(f"http://{served.http}")
