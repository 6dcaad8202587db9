"""How fast a request has to arrive. A client that sends a byte now and then would hold its place for hours."""

from dataclasses import replace

from serving.api.faults import Fault

GRACE_S = 20.0  # for a head, and before the rate of a body counts
SLOWEST_BYTES_PER_S = 8 * 1024
TOO_SLOW = Fault(
    408,
    f"the request arrives too slowly: beyond {GRACE_S:.0f} s it has to bring {SLOWEST_BYTES_PER_S} bytes per second",
)
TOO_SLOW_AND_LAST = replace(TOO_SLOW, headers=((b"connection", b"close"),))


def patience_s(received: int) -> float:
    """How long a request may take, from its beginning, of which so many bytes are here."""
    return GRACE_S + received / SLOWEST_BYTES_PER_S
