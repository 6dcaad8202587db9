"""Machines that do not give a process all of their time: cores shared with others, a quota, stalls, a slower clock.

A machine tells when work that needs a given CPU time is done. Work is given to it in about the order of its beginning.
The module knows nothing of requests and batches.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import repeat
from random import Random
from typing import Protocol

from serving.core.pace import CpuQuota

MS = 1_000_000
SECOND = 1000 * MS
AGES_NS = 1 << 62
NICENESS_STEP = 1.25  # one level of niceness changes a thread's weight by this factor
CORES = 2  # of the machine
SLICES_MS = (1.5, 4.5)  # how long the kernel lets a thread run while another of equal weight waits for the core

Pieces = Iterator[tuple[int, float]]  # (how long in ns, the share of the core that the process gets), without end


class Machine(Protocol):
    def done_ns(self, start_ns: int, work_ns: int) -> int:
        """Returns the instant at which `work_ns` of CPU time are spent by work that begins at `start_ns`."""
        ...

    def spend(self, start_ns: int, work_ns: int) -> int:
        """Does the work: as `done_ns`, and counts it where the CPU time is limited."""
        ...


class Shared:
    """A core of which the process gets a share that changes with time, whatever it does."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._ends_ns: list[int] = []
        self._shares: list[float] = []

    def done_ns(self, start_ns: int, work_ns: int) -> int:
        while not self._ends_ns or self._ends_ns[-1] <= start_ns:
            self._draw()
        index, now_ns, left = bisect_right(self._ends_ns, start_ns), start_ns, float(work_ns)
        while True:
            end_ns, share = self._ends_ns[index], self._shares[index]
            possible = (end_ns - now_ns) * share
            if share > 0.0 and possible >= left:
                return now_ns + int(left / share)
            left -= possible
            now_ns, index = end_ns, index + 1
            if index == len(self._ends_ns):
                self._draw()

    def spend(self, start_ns: int, work_ns: int) -> int:
        return self.done_ns(start_ns, work_ns)

    def _draw(self) -> None:
        lasts_ns, share = next(self._pieces)
        self._ends_ns.append((self._ends_ns[-1] if self._ends_ns else 0) + lasts_ns)
        self._shares.append(share)


class Quota:
    """A container that may use `share` of a core per period: once that is used up it stands until the next period.

    It has the quota from `start_ns` to `end_ns` only. One object for all threads of the container.
    """

    def __init__(self, share: float, start_ns: int, end_ns: int, period_ns: int = 100 * MS) -> None:
        self._most_ns = int(share * period_ns)
        self._start_ns, self._end_ns, self._period_ns = start_ns, end_ns, period_ns
        self._used_ns: dict[int, int] = {}

    def in_force(self, now_ns: int) -> CpuQuota | None:
        in_force = self._start_ns <= now_ns < self._end_ns
        return CpuQuota(self._most_ns, self._period_ns, CORES) if in_force else None

    def used_ns(self) -> int:
        return sum(self._used_ns.values())

    def done_ns(self, start_ns: int, work_ns: int) -> int:
        return self._run(start_ns, work_ns, counts=False)

    def spend(self, start_ns: int, work_ns: int) -> int:
        return self._run(start_ns, work_ns, counts=True)

    def _run(self, start_ns: int, work_ns: int, *, counts: bool) -> int:
        now_ns, left_ns = start_ns, work_ns
        while True:
            if not self._start_ns <= now_ns < self._end_ns:
                runs_ns = self._start_ns - now_ns if now_ns < self._start_ns else AGES_NS
                if left_ns <= runs_ns:
                    return now_ns + left_ns
                now_ns, left_ns = now_ns + runs_ns, left_ns - runs_ns
                continue
            period = now_ns // self._period_ns
            ends_ns = min((period + 1) * self._period_ns, self._end_ns)
            used_ns = self._used_ns.get(period, 0)
            runs_ns = max(0, min(left_ns, self._most_ns - used_ns, ends_ns - now_ns))
            if counts:
                self._used_ns[period] = used_ns + runs_ns
            left_ns -= runs_ns
            if left_ns == 0:
                return now_ns + runs_ns
            now_ns = ends_ns


def whole() -> Pieces:
    return repeat((SECOND, 1.0))


def between(start_ns: int, end_ns: int, pieces: Pieces) -> Pieces:
    """Yields the pieces for the time from `start_ns` to `end_ns`; the whole core before and after."""
    yield start_ns, 1.0
    left_ns = end_ns - start_ns
    while left_ns > 0:
        lasts_ns, share = next(pieces)
        yield min(lasts_ns, left_ns), share
        left_ns -= lasts_ns
    yield from whole()


def beside_a_neighbour(rng: Random, niceness: int = 0) -> Pieces:
    """Yields the turns of a thread whose core a busy process of niceness 0 wants too.

    niceness: of the thread; 0 makes turns of equal length."""
    weight = NICENESS_STEP**-niceness
    while True:
        yield int(rng.uniform(*SLICES_MS) * MS), 0.0
        yield int(rng.uniform(*SLICES_MS) * weight * MS), 1.0


def stalling(rng: Random, stall_ns: int = 50 * MS, every_ns: int = 500 * MS) -> Pieces:
    """Yields stalls in which the process does not run at all, one per `every_ns` on average."""
    while True:
        yield int(rng.expovariate(1.0 / (every_ns - stall_ns))) + 1, 1.0
        yield stall_ns, 0.0


def slower(share: float) -> Pieces:
    return repeat((SECOND, share))
