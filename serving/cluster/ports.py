"""Where gRPC's fast door listens: a fixed distance above the port that Ray Serve gave to the replica's own gRPC server.

So HAProxy, on whichever node, knows it from its own configuration (`haproxy.py`). Ray does not tell user code that
port; the kernel does: it is the one port in Ray's range on which this process listens and did not before. (Ray's own
ports come from the kernel's range, which includes that one.)

Two servers on one machine must not use the same ports for their replicas: gRPC's servers share a port without a word
(SO_REUSEPORT), and the calls of one server's clients would reach the other's models. So each takes a part of the range.
"""

import os
from collections.abc import Collection
from pathlib import Path

from serving.port_ranges import FAST_GRPC, FAST_GRPC_DISTANCE, RAY_GRPC, RAY_HTTP

ALONE = "HEADWAY_ALONE"  # the environment variable that the launcher sets where Ray will never have another machine
LISTENING = "0A"
PART, PARTS = 110, 9


def addresses(loopback: str, node: str) -> list[str]:
    """Where the fast door listens: at what HAProxies call. That of this machine calls the loopback, those of other
    machines the own address of the node."""
    return [loopback] if os.environ.get(ALONE) or loopback == node else [loopback, node]


def grpc_ports() -> range:
    """Ray's range for replicas' gRPC servers."""
    first = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", RAY_GRPC[0]))
    last = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT", RAY_GRPC[-1]))
    return range(first, last + 1)


def replicas_environment(http_port: int, taken: Collection[int]) -> dict[str, str]:
    """For Ray: the part of its ranges that the replicas of this server use. It follows `http_port`; neighbours differ.
    A part where somebody listens already is passed over, unless there is no other."""
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
    """For HTTP, gRPC and its fast door."""
    firsts = (RAY_HTTP.start, RAY_GRPC.start, FAST_GRPC.start)
    http, grpc, fast = (range(first + part * PART, first + (part + 1) * PART) for first in firsts)
    return http, grpc, fast


def machines_ports(net: Path = Path("/proc/net")) -> set[int]:
    """The TCP ports on which anybody on this machine listens; empty where there is no /proc."""
    tables = [(net / name).read_text() for name in ("tcp", "tcp6") if (net / name).exists()]
    return {port for table in tables for port, _ in parse_listening(table)}


def listening_ports(process: Path = Path("/proc/self")) -> set[int]:
    """The TCP ports this process listens on; empty where there is no /proc."""
    inodes = set()
    try:
        for entry in (process / "fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:  # closed while we looked
                continue
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
        tables = [(process / "net" / name).read_text() for name in ("tcp", "tcp6") if (process / "net" / name).exists()]
    except OSError:
        return set()
    return {port for table in tables for port, inode in parse_listening(table) if inode in inodes}


def parse_listening(table: str) -> list[tuple[int, str]]:
    """(port, inode) of every listening socket in the text of /proc/net/tcp or tcp6."""
    rows = (line.split() for line in table.splitlines()[1:])
    return [(int(row[1].rpartition(":")[2], 16), row[9]) for row in rows if row[3] == LISTENING]


def fast_port(before: set[int]) -> int | None:
    """Where the fast door of this replica belongs; None if the port of its gRPC server cannot be told. before: what the
    process listened on when there was no such server."""
    found = (listening_ports() - before) & set(grpc_ports())
    return found.pop() + FAST_GRPC_DISTANCE if len(found) == 1 else None
