"""Gives memory back to the machine that this process used once and malloc keeps.

What large messages, pictures and batches took is free again when they are answered, but glibc keeps what lies between
pieces that are in use: a replica that has read some messages of 64 MiB would stay a hundred MiB larger for ever. Asking
for it back (`malloc_trim`) takes 1 to 25 ms beside the event loop, and pages that are used again have to be fetched
again. So it is done when the process has grown and is at rest, and every half minute in the long run: a model that
computes on the CPU and rests again and again must not pay for that each time. What lies above all that is in use goes
back by itself, since there is one arena only (MALLOC_ARENA_MAX, `environment.py`).
"""

import ctypes
from collections.abc import Callable

from serving.cluster.replica.snapshots import cpu_ns, memory_bytes
from serving.core.clock import SystemClock

GROWN_SHARE = 0.05
REST_SHARE = 0.05  # of a core: a process that uses less is at rest
MOST, EVERY_NS = 8, 30 * 1_000_000_000  # so many times in a row, and once more with each such span
Trim = Callable[[int], object]


class Keeping:
    """Decides. resident_bytes: what the process holds when it begins to work."""

    def __init__(self, resident_bytes: int) -> None:
        self._needed_bytes = resident_bytes
        self._left = float(MOST)

    def is_due(self, resident_bytes: int, used_ns: int, passed_ns: int) -> bool:
        """used_ns: the CPU time of this process in the `passed_ns` since it was asked last."""
        self._left = min(float(MOST), self._left + passed_ns / EVERY_NS)
        has_grown = resident_bytes > self._needed_bytes * (1 + GROWN_SHARE)
        return has_grown and used_ns < REST_SHARE * passed_ns and self._left >= 1

    def given_back(self, resident_bytes: int) -> None:
        """What the process holds afterwards is in use. What it held at first it will hold again: that is not asked for
        twice."""
        self._left -= 1
        self._needed_bytes = max(self._needed_bytes, resident_bytes)


class Heap:
    """Look at it every few seconds, beside the event loop; Ray calls a replica's health check in a thread. trim:
    malloc_trim, None for never. resident_bytes, used_ns: of this process."""

    def __init__(
        self,
        trim: Trim | None,
        *,
        resident_bytes: Callable[[], int] = memory_bytes,
        used_ns: Callable[[], int] = cpu_ns,
    ) -> None:
        self._trim = trim
        self._resident_bytes = resident_bytes
        self._cpu_ns = used_ns
        self._keeping = Keeping(resident_bytes())
        self._looked_ns, self._used_ns = SystemClock.now_ns(), used_ns()

    def look(self) -> None:
        now_ns, used_ns = SystemClock.now_ns(), self._cpu_ns()
        passed_ns, used_meanwhile_ns = now_ns - self._looked_ns, used_ns - self._used_ns
        self._looked_ns, self._used_ns = now_ns, used_ns
        if self._trim is not None and self._keeping.is_due(self._resident_bytes(), used_meanwhile_ns, passed_ns):
            self._trim(0)
            self._keeping.given_back(self._resident_bytes())


def malloc_trim() -> Trim | None:
    """glibc's; None where there is another malloc."""
    trim: Trim | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
