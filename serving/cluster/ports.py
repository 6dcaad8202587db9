"""The ports of replicas, and the port of the fast door for gRPC: a fixed distance above the replica's Ray gRPC port.

HAProxy on any node can therefore compute the port of the fast door from its own configuration (`haproxy/editing.py`).
Ray does not pass its gRPC port to user code. It is read from the kernel: the only port in Ray's range on which this
process listens now and did not listen before. (Other ports of Ray come from the kernel's ephemeral range, which
includes Ray's range for gRPC, so the ports used before are excluded.)

Two servers on one machine must not use the same ports for their replicas: gRPC servers share a port without an error
(SO_REUSEPORT), and calls of one server's clients would reach the other's models. So each server takes a part of the
range.
"""

import os
from collections.abc import Collection
from pathlib import Path

from serving.port_ranges import FAST_GRPC, FAST_GRPC_DISTANCE, RAY_GRPC, RAY_HTTP

ALONE = "HEADWAY_ALONE"  # the environment variable that the launcher sets if Ray runs on this machine only
LISTENING = "0A"  # the state LISTEN in /proc/net/tcp
PART, PARTS = 110, 9  # ports per part, and the number of parts


def addresses(loopback: str, node: str) -> list[str]:
    """The addresses on which the fast door listens. The HAProxy of this machine connects to the loopback, those of
    other machines to the node's address."""
    return [loopback] if os.environ.get(ALONE) or loopback == node else [loopback, node]


def grpc_ports() -> range:
    """Ray's port range for the replicas' gRPC servers."""
    first = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", RAY_GRPC[0]))
    last = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT", RAY_GRPC[-1]))
    return range(first, last + 1)


def replicas_environment(http_port: int, taken: Collection[int]) -> dict[str, str]:
    """Returns the variables that tell Ray which part of its port ranges the replicas of this server use.

    The part follows from `http_port`, so that servers on neighbouring ports use different parts. A part that contains a
    port in `taken` is skipped, unless no other is left."""
    wanted = [(http_port + step) % PARTS for step in range(PARTS)]
    free = (part for part in wanted if not any(port in ports for ports in _ports_of(part) for port in taken))
    http, grpc, _ = _ports_of(next(free, wanted[0]))
    named = {"HTTP": http, "GRPC": grpc}
    return {
        f"RAY_SERVE_DIRECT_INGRESS_{bound}_{wire}_PORT": str(port)
        for wire, ports in named.items()
        for bound, port in (("MIN", ports[0]), ("MAX", ports[-1]))
    }


def _ports_of(part: int) -> tuple[range, range, range]:
    """Returns the ports of this part: for HTTP, for Ray's gRPC servers, and for the fast doors of gRPC."""
    firsts = (RAY_HTTP.start, RAY_GRPC.start, FAST_GRPC.start)
    http, grpc, fast = (range(first + part * PART, first + (part + 1) * PART) for first in firsts)
    return http, grpc, fast


def machines_ports(net: Path = Path("/proc/net")) -> set[int]:
    """The TCP ports on which any process of this machine listens; empty if there is no /proc."""
    tables = [(net / name).read_text() for name in ("tcp", "tcp6") if (net / name).exists()]
    return {port for table in tables for port, _ in parse_listening(table)}


def listening_ports(process: Path = Path("/proc/self")) -> set[int]:
    """The TCP ports on which this process listens; empty if there is no /proc."""
    inodes = set()
    try:
        for entry in (process / "fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:  # closed in the meantime
                continue
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
        tables = [(process / "net" / name).read_text() for name in ("tcp", "tcp6") if (process / "net" / name).exists()]
    except OSError:
        return set()
    return {port for table in tables for port, inode in parse_listening(table) if inode in inodes}


def parse_listening(table: str) -> list[tuple[int, str]]:
    """Returns (port, inode) of every listening socket. table: the text of /proc/net/tcp or tcp6."""
    rows = (line.split() for line in table.splitlines()[1:])
    return [(int(row[1].rpartition(":")[2], 16), row[9]) for row in rows if row[3] == LISTENING]


def fast_port(before: set[int]) -> int | None:
    """The port for the fast door of this replica; None if the port of its gRPC server cannot be determined.

    before: the ports on which the process listened before Ray started that server."""
    found = (listening_ports() - before) & set(grpc_ports())
    return found.pop() + FAST_GRPC_DISTANCE if len(found) == 1 else None
