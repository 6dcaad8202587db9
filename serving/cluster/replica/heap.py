"""Returns free memory that malloc keeps to the operating system.

The memory of large messages, pictures and batches is free after they are answered, but glibc keeps free memory between
blocks in use: a replica that has read some messages of 64 MiB would stay a hundred MiB larger for ever. `malloc_trim`
returns it. It takes 1 to 25 ms in a thread beside the event loop, and pages that are used again cause page faults. So
it is called only when the process has grown and is idle, and in the long run at most every half minute: a CPU model
that is often idle for a short time must not pay each time. Memory above the last block in use is returned without it,
since there is only one arena (MALLOC_ARENA_MAX, `environment.py`).
"""

import asyncio
import ctypes
from collections.abc import Callable

from serving.cluster.replica.snapshots import cpu_ns, memory_bytes
from serving.core.clock import SystemClock

GROWN_SHARE = 0.05
REST_SHARE = 0.05  # of a core: a process that uses less is idle
MOST, EVERY_NS = 8, 30 * 1_000_000_000  # a token bucket: at most 8 trims in a row, one more every 30 s
Trim = Callable[[int], object]


class Keeping:
    """Decides when to trim. resident_bytes: the resident memory of the process when it begins to serve."""

    def __init__(self, resident_bytes: int) -> None:
        self._needed_bytes = resident_bytes
        self._left = float(MOST)

    def is_due(self, resident_bytes: int, used_ns: int, passed_ns: int) -> bool:
        """Returns whether to trim now. used_ns: CPU time of this process in the `passed_ns` since the last call."""
        self._left = min(float(MOST), self._left + passed_ns / EVERY_NS)
        has_grown = resident_bytes > self._needed_bytes * (1 + GROWN_SHARE)
        return has_grown and used_ns < REST_SHARE * passed_ns and self._left >= 1

    def given_back(self, resident_bytes: int) -> None:
        """Notes a trim. resident_bytes: after it, all in use.

        The level from which growth counts never falls, because the process will need that memory again."""
        self._left -= 1
        self._needed_bytes = max(self._needed_bytes, resident_bytes)


class Heap:
    """Trims the heap, in a thread, when it is worth it. Call `look` every few seconds.

    trim: malloc_trim; None: never trims. resident_bytes, used_ns: return memory and CPU time of this process."""

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

    async def look(self) -> None:
        now_ns, used_ns = SystemClock.now_ns(), self._cpu_ns()
        passed_ns, used_meanwhile_ns = now_ns - self._looked_ns, used_ns - self._used_ns
        self._looked_ns, self._used_ns = now_ns, used_ns
        if self._trim is not None and self._keeping.is_due(self._resident_bytes(), used_meanwhile_ns, passed_ns):
            await asyncio.to_thread(self._trim, 0)
            self._keeping.given_back(self._resident_bytes())


def malloc_trim() -> Trim | None:
    """Returns glibc's `malloc_trim`; None with another malloc."""
    trim: Trim | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
