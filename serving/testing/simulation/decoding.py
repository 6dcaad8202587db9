"""A policy whose requests must be prepared first, by a few threads: photographs that are decoded, for example.

Preparing takes a constant time. Its threads do not slow the device down, so what is prepared in vain is counted.
"""

from heapq import heappop, heappush

from serving.core.preparing import ANY_SHAPE, Preparing
from serving.core.request import Request
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.policy import Work


class Decoding:
    """Headway's own policy behind threads that prepare.

    late: prepare only what will be served, as `core/preparing.py` decides; else whatever came first at once.
    prepared, in_vain: the requests that were prepared, and those of them that were given up.
    """

    def __init__(self, policy: Headway, *, threads: int, took_ns: int, late: bool) -> None:
        self.prefetches = policy.prefetches
        self.wake_ns: int | None = None
        self.dropped: list[Request] = []
        self.prepared = 0
        self.in_vain = 0
        self._policy = policy
        self._preparing = Preparing(policy.batcher)
        self._free = threads
        self._took_ns = took_ns
        self._is_late = late
        self._running: list[tuple[int, int, Request]] = []  # (done at, id, request)

    def arrive(self, request: Request, now_ns: int) -> bool:
        waiting = len(self._preparing)
        if self._policy.batcher.admit(request, now_ns, waiting) is not None:
            return False
        self._preparing.add(request)
        self._go_on(now_ns)
        return True

    def next(self, lane: int, now_ns: int) -> Work | None:
        if self._policy.wake_ns is not None and self._policy.wake_ns <= now_ns:
            self._policy.wake_ns = None
        self._go_on(now_ns)
        work = self._policy.next(lane, now_ns)
        self.in_vain += len(self._policy.dropped)
        self.dropped += self._policy.dropped
        self._policy.dropped.clear()
        self._go_on(now_ns)
        return work

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None:
        self._policy.done(work, now_ns, failed=failed)

    def cancel(self, request: Request, now_ns: int) -> bool:
        raise NotImplementedError("clients do not hang up here")

    def _go_on(self, now_ns: int) -> None:
        """Passes on what is prepared, gives up what is late, and lets free threads take the next."""
        while self._running and self._running[0][0] <= now_ns:
            request = heappop(self._running)[2]
            self._free += 1
            self._preparing.took(self._took_ns)
            self._preparing.remove(request)
            if not self._policy.arrive(request, now_ns):
                self.in_vain += 1
                self.dropped.append(request)
        for request in self._preparing.late(now_ns):
            if all(request is not running for _, _, running in self._running):
                self._preparing.remove(request)
                self.dropped.append(request)
        while self._free and (chosen := self._next(now_ns)) is not None:
            self._free -= 1
            self.prepared += 1
            heappush(self._running, (now_ns + self._took_ns, chosen.id, chosen))
        instants = [self._running[0][0]] if self._running else []
        if self._policy.wake_ns is not None:
            instants.append(self._policy.wake_ns)
        self.wake_ns = min(instants, default=None)

    def _next(self, now_ns: int) -> Request | None:
        if self._is_late:
            return self._preparing.next(now_ns)
        lines = self._preparing.waiting.lines.get(ANY_SHAPE)
        if not lines:
            return None
        first = next(iter(next(iter(lines.values()))))
        self._preparing.remove(first)
        return first
