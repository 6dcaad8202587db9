"""Where gRPC's fast door listens: a fixed distance above the port that Ray Serve gave to the replica's own gRPC server.

So HAProxy, on whichever node, knows it from its own configuration (`haproxy.py`). Ray does not tell user code that
port; the kernel does: it is the one port in Ray's range on which this process listens and did not before. (Ray's own
ports come from the kernel's range, which includes that one.) Standard library only.
"""

import os
from pathlib import Path

DISTANCE = 1500
ALONE = "HEADWAY_ALONE"  # the environment variable that the launcher sets where Ray will never have another machine
LISTENING = "0A"


def addresses(loopback: str, node: str) -> list[str]:
    """Where the fast door listens: at what HAProxies call. That of this machine calls the loopback, those of other
    machines the own address of the node."""
    return [loopback] if os.environ.get(ALONE) or loopback == node else [loopback, node]


def grpc_ports() -> range:
    """Ray's range for replicas' gRPC servers."""
    first = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT", "40000"))
    last = int(os.environ.get("RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT", "41000"))
    return range(first, last + 1)


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
    return found.pop() + DISTANCE if len(found) == 1 else None
