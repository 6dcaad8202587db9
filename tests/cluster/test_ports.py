"""Tests how a replica finds the port of its own gRPC server."""

import asyncio
import socket

import pytest

from serving.api.grpc.connection import GrpcListener
from serving.cluster.ports import (
    ALONE,
    addresses,
    fast_port,
    listening_ports,
    parse_listening,
    replicas_environment,
)
from serving.port_ranges import FAST_GRPC_DISTANCE
from tests.api.grpc_serving import service_of

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1
   1: 0100007F:9C42 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 78 1
"""


def test_only_listening_sockets_count() -> None:
    assert parse_listening(TABLE) == [(40001, "77")]


def test_a_process_finds_its_own_ports_and_not_its_connections() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        found = listening_ports()
        assert server.getsockname()[1] in found
        assert client.getsockname()[1] not in found
    assert server.fileno() == -1


def test_another_port_of_the_process_in_rays_range_is_not_taken_for_its_grpc_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as earlier:
        before = listening_ports()
        with socket.create_server(("127.0.0.1", 0)) as server:
            ports = sorted(one.getsockname()[1] for one in (earlier, server))
            for name, port in zip(("MIN", "MAX"), ports, strict=True):
                monkeypatch.setenv(f"RAY_SERVE_DIRECT_INGRESS_{name}_GRPC_PORT", str(port))
            assert fast_port(before) == server.getsockname()[1] + FAST_GRPC_DISTANCE
            assert fast_port(set()) is None


def test_the_fast_door_listens_only_where_a_haproxy_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALONE, raising=False)
    assert addresses("127.0.0.1", "10.0.0.5") == ["127.0.0.1", "10.0.0.5"]
    assert addresses("127.0.0.1", "127.0.0.1") == ["127.0.0.1"]
    monkeypatch.setenv(ALONE, "1")
    assert addresses("127.0.0.1", "10.0.0.5") == ["127.0.0.1"]


def test_a_door_on_the_loopback_is_reached_by_no_other_address() -> None:
    async def story() -> None:
        listener = GrpcListener(service_of([]), max_message_bytes=1000)
        port = await listener.open(["127.0.0.1"], 0)
        assert {one.getsockname()[0] for one in listener._server.sockets} == {"127.0.0.1"}
        assert port
        await listener.close()

    asyncio.run(story())


def ranges(environment: dict[str, str]) -> dict[str, range]:
    """Returns the port range of each wire."""
    return {
        wire: range(*(int(environment[f"RAY_SERVE_DIRECT_INGRESS_{bound}_{wire}_PORT"]) for bound in ("MIN", "MAX")))
        for wire in ("HTTP", "GRPC")
    }


@pytest.mark.parametrize("other", [8001, 8010, 8100, 9000, 18000])
def test_replicas_of_two_servers_on_one_machine_have_ports_of_their_own(other: int) -> None:
    one, two = ranges(replicas_environment(8000, ())), ranges(replicas_environment(other, ()))
    for wire in one:
        assert one[wire][0] not in two[wire]
        assert two[wire][0] not in one[wire]


def test_a_part_with_a_taken_port_is_skipped_unless_no_other_is_left() -> None:
    wanted = ranges(replicas_environment(8000, ()))
    for taken in (wanted["HTTP"][3], wanted["GRPC"][-1], wanted["GRPC"][0] + FAST_GRPC_DISTANCE):
        found = ranges(replicas_environment(8000, {taken}))
        assert found["HTTP"][0] != wanted["HTTP"][0]
    assert ranges(replicas_environment(8000, set(range(30000, 43000)))) == wanted


def test_the_ports_of_a_part_stay_within_rays_ranges() -> None:
    for http_port in range(8000, 8009):
        found = ranges(replicas_environment(http_port, ()))
        assert 30000 <= found["HTTP"][0] < found["HTTP"][-1] < 31000
        assert 40000 <= found["GRPC"][0] < found["GRPC"][-1] < 41000
