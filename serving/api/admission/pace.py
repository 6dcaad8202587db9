"""The least speed at which a request has to arrive, so that slow clients cannot hold connections for hours."""

from dataclasses import replace

from serving.api.faults import Fault

GRACE_S = 20.0  # time for a head, and for a body in addition to the time at the least rate
SLOWEST_BYTES_PER_S = 8 * 1024
TOO_SLOW = Fault(
    408,
    f"the request arrives too slowly: beyond {GRACE_S:.0f} s it has to bring {SLOWEST_BYTES_PER_S} bytes per second",
)
TOO_SLOW_AND_LAST = replace(TOO_SLOW, headers=((b"connection", b"close"),))


def patience_s(received: int) -> float:
    """Returns how many seconds after its first byte a request may be incomplete if `received` bytes have arrived."""
    return GRACE_S + received / SLOWEST_BYTES_PER_S
