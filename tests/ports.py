"""Ports for servers that tests start as processes of their own."""

import random
import socket

from serving.port_ranges import RAY_HTTP

# Below the range from which Linux takes ports for outgoing connections and for port 0: such a port could be taken
# between the look here and the server's start. Above the fixed ports of Ray's tests, below those of Ray's replicas.
_PORTS = range(20_000, RAY_HTTP.start)
_CHOICE = random.SystemRandom()  # tests that run side by side must not choose the same ones


def free_port() -> int:
    """Returns a port of loopback on which nothing listens."""
    while True:
        port = _CHOICE.choice(_PORTS)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
