"""The slowest rate at which a request may arrive, so that slow clients do not hold connections and memory for hours."""

from dataclasses import replace

from serving.api.faults import Fault

GRACE_S = 20.0  # for the head, and for the body in addition to the time that the rate gives it
SLOWEST_BYTES_PER_S = 8 * 1024
TOO_SLOW = Fault(
    408,
    f"the request arrives too slowly: after {GRACE_S:.0f} s at least {SLOWEST_BYTES_PER_S} bytes/s are required",
)
TOO_SLOW_AND_LAST = replace(TOO_SLOW, headers=((b"connection", b"close"),))


def patience_s(received: int) -> float:
    """Returns the longest time in s that a request may take so far, counted from its beginning.

    received: the number of bytes that have arrived.
    """
    return GRACE_S + received / SLOWEST_BYTES_PER_S
