"""Tells HAProxy how many requests it may have in flight to this replica, in a header of some answers.

The header also tells for how long HAProxy should hold a refusal back. HAProxy removes the header
(`cluster/haproxy/intake.py`). One answer in sixteen carries it: often enough to follow an overload, and to reach every
HAProxy in front within a few milliseconds of load, also one that has just started.
"""

from collections.abc import Callable

HEADER = b"x-headway-bound"
EVERY = 16  # answers


class Bound:
    """The header of one replica's answers.

    read: returns the bound; None: there is never one. hold_ms: for how long HAProxy holds a refusal back, in ms.
    """

    def __init__(self, read: Callable[[], int] | None, hold_ms: int = 0) -> None:
        self._read = read
        self._hold_ms = hold_ms
        self._answers = 0

    def due(self) -> bytes:
        """Returns the header's value if this answer should carry it, otherwise nothing. Call it once per answer."""
        if self._read is None:
            return b""
        self._answers += 1
        return b"" if self._answers % EVERY else b"%d %d" % (self._read(), self._hold_ms)


NO_BOUND = Bound(None)
