"""How long the event loop stood still: measured only while somebody watches, and free of cost otherwise.

A stall is the time by which a tick came late. On a busy machine that is also time in which this process was not given a
core; so much of a stall as its process computed (whichever thread held the interpreter) is told beside it.
"""

import asyncio

from serving.cluster.replica.snapshots import cpu_ns
from serving.core.clock import SystemClock

TICK_S = 0.01
LONGEST_WATCH_S = 60.0


class LoopWatch:
    """Use it on the loop that it watches. A watch ends by itself."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._began_ns = self._until_ns = self._ticked_ns = self._cpu_ns = 0
        self._longest_ns = self._longest_own_ns = 0

    def watch(self, seconds: float) -> None:
        """Starts over, and watches for so long."""
        self.close()
        self._longest_ns = self._longest_own_ns = 0
        self._began_ns = self._ticked_ns = SystemClock.now_ns()
        self._until_ns = self._began_ns + int(min(max(0.0, seconds), LONGEST_WATCH_S) * 1e9)
        self._cpu_ns = cpu_ns()
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def report(self) -> dict[str, float]:
        """Since the watch began. longest_own_stall_ms: of a stall, what this process computed meanwhile."""
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
