"""How a replica learns the port of its own gRPC server."""

import socket

from serving.cluster.ports import listening_ports, parse_listening

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
