"""Measures for how long the event loop was blocked. Costs nothing while no watch is on.

A stall is the time by which a tick came late. On a busy machine it includes time in which this process had no core; the
CPU time of the process (of any thread) during the stall is reported beside it.
"""

import asyncio

from serving.cluster.replica.snapshots import cpu_ns
from serving.core.clock import SystemClock

TICK_S = 0.01
LONGEST_WATCH_S = 60.0


class LoopWatch:
    """Watches the event loop on which it is called. A watch ends by itself."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._began_ns = self._until_ns = self._ticked_ns = self._cpu_ns = 0
        self._longest_ns = self._longest_own_ns = 0

    def watch(self, seconds: float) -> None:
        """Resets the measurement, and watches for this time, at most LONGEST_WATCH_S."""
        self.close()
        self._longest_ns = self._longest_own_ns = 0
        self._began_ns = self._ticked_ns = SystemClock.now_ns()
        self._until_ns = self._began_ns + int(min(max(0.0, seconds), LONGEST_WATCH_S) * 1e9)
        self._cpu_ns = cpu_ns()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def report(self) -> dict[str, float]:
        """Returns the stalls since the watch began. longest_own_stall_ms: most CPU time of this process in a stall."""
        if self._timer is not None:
            self._measure()
        return {
            "watched_s": (self._ticked_ns - self._began_ns) / 1e9,
            "longest_stall_ms": self._longest_ns / 1e6,
            "longest_own_stall_ms": self._longest_own_ns / 1e6,
        }

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._measure()
        self._timer = None
        if self._ticked_ns < self._until_ns:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _measure(self) -> None:
        now_ns, used_ns = SystemClock.now_ns(), cpu_ns()
        stall_ns = now_ns - self._ticked_ns - int(TICK_S * 1e9)
        self._longest_ns = max(self._longest_ns, stall_ns)
        self._longest_own_ns = max(self._longest_own_ns, min(stall_ns, used_ns - self._cpu_ns))
        self._ticked_ns, self._cpu_ns = now_ns, used_ns
