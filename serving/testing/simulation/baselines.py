"""The batching rules of other servers, on the simulation's executor. They know the law; Headway has to learn it.

All are first come, first served, which is deadline order if all requests have the same budget.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from serving.core.request import Request
from serving.testing.simulation.laws import Law, Setting
from serving.testing.simulation.policy import Work

SAFETY = 1.05  # the 99th percentile of 2 % noise, for rules that predict whether a batch finishes in time


class Drop(Enum):
    NOTHING = "no drop"
    EXPIRED = "drop expired"
    INFEASIBLE = "drop infeasible"  # the head, while the batch that would be cut is too slow for it


@dataclass(frozen=True, slots=True)
class Known:
    """The law with its margin, tabulated by rows."""

    bound_ns: list[int]  # index 0 is unused

    @classmethod
    def of(cls, law: Law, max_rows: int) -> "Known":
        return cls([0, *(int(law.mean_ns(rows) * SAFETY) for rows in range(1, max_rows + 1))])

    def rows_within(self, slack_ns: int) -> int:
        low, high = 0, len(self.bound_ns) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.bound_ns[middle] <= slack_ns:
                low = middle
            else:
                high = middle - 1
        return low


class Fifo:
    """The base class of the rules: one queue, no refusals."""

    prefetches = False

    def __init__(self) -> None:
        self.line: deque[Request] = deque()
        self.wake_ns: int | None = None
        self.dropped: list[Request] = []

    def arrive(self, request: Request, now_ns: int) -> bool:
        self.line.append(request)
        return True

    def next(self, lane: int, now_ns: int) -> Work | None:
        rows = self.rows_now(now_ns) if self.line else 0
        return self.take(rows) if rows else None

    def rows_now(self, now_ns: int) -> int:
        """Returns the number of rows to serve now from the head of the queue. May drop requests first."""
        raise NotImplementedError

    def take(self, rows: int) -> Work:
        line = self.line
        return Work([line.popleft() for _ in range(rows)], rows)

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None:
        return

    def cancel(self, request: Request, now_ns: int) -> bool:
        try:
            self.line.remove(request)
        except ValueError:
            return False
        return True


class Timeout(Fifo):
    """Triton's dynamic batcher: when the device is free, starts a batch if it is full or if its oldest request has
    waited long enough.

    Without a wait it is greedy: it starts with all waiting requests as soon as the device is free.
    """

    def __init__(self, setting: Setting, *, max_rows: int, wait_ns: int = 0, drop: Drop = Drop.NOTHING) -> None:
        super().__init__()
        self.max_rows = max_rows
        self.wait_ns = wait_ns
        self.drop = drop
        self.known = Known.of(setting.law, max_rows) if drop is Drop.INFEASIBLE else None

    def rows_now(self, now_ns: int) -> int:
        line = self.line
        if self.drop is not Drop.NOTHING:
            self._shorten(now_ns)
        if not line:
            return 0
        if self.wait_ns and len(line) < self.max_rows:
            due_ns = line[0].arrived_ns + self.wait_ns
            if now_ns < due_ns:
                self.wake_ns = due_ns
                return 0
        return min(len(line), self.max_rows)

    def _shorten(self, now_ns: int) -> None:
        line = self.line
        while line:
            needs_ns = self.known.bound_ns[min(len(line), self.max_rows)] if self.known else 0
            if line[0].deadline_ns >= now_ns + needs_ns:
                return
            self.dropped.append(line.popleft())


class Aimd(Fifo):
    """Clipper's rule: one more row after a good batch, a tenth less after a bad one. A batch is bad if it took longer
    than the budget; with `on_misses`, if one of its requests was late."""

    def __init__(self, setting: Setting, *, on_misses: bool = False) -> None:
        super().__init__()
        self.budget_ns = setting.budget_ns
        self.cap = float(1)
        self.most = setting.max_rows
        self.on_misses = on_misses
        self.started_ns = 0

    def rows_now(self, now_ns: int) -> int:
        self.started_ns = now_ns
        return min(len(self.line), int(self.cap))

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None:
        if self.on_misses:
            bad = any(request.deadline_ns < now_ns for request in work.requests)
        else:
            bad = now_ns - self.started_ns > self.budget_ns
        if bad:
            self.cap = max(1.0, self.cap * 0.9)
        elif len(work.requests) >= int(self.cap):
            self.cap = min(self.most, self.cap + 1)


class ServeBatch(Fifo):
    """`@serve.batch` of Ray: a batch is closed when it is full or when its first request has waited long enough,
    whether or not the device is free."""

    def __init__(self, *, max_rows: int = 10, wait_ns: int = 10_000_000) -> None:
        super().__init__()
        self.max_rows = max_rows
        self.wait_ns = wait_ns
        self.sealed: deque[int] = deque()  # sizes of the sealed batches at the head of the line
        self.open = 0

    def arrive(self, request: Request, now_ns: int) -> bool:
        self._seal_due(now_ns)
        self.line.append(request)
        self.open += 1
        if self.open == self.max_rows:
            self._seal()
        elif self.open == 1:
            self.wake_ns = now_ns + self.wait_ns
        return True

    def next(self, lane: int, now_ns: int) -> Work | None:
        self._seal_due(now_ns)
        return self.take(self.sealed.popleft()) if self.sealed else None

    def _seal_due(self, now_ns: int) -> None:
        if self.open and now_ns >= self.line[-self.open].arrived_ns + self.wait_ns:
            self._seal()

    def _seal(self) -> None:
        self.sealed.append(self.open)
        self.open = 0
        self.wake_ns = None

    def cancel(self, request: Request, now_ns: int) -> bool:
        return False  # it stays in its batch


class NexusEarlyDrop(Fifo):
    """Nexus' early drop: drops the first request while its deadline would force a batch smaller than the target size
    (or than the queue, if fewer requests wait)."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.aim = setting.best_rows()
        self.max_rows = setting.max_rows
        self.known = Known.of(setting.law, setting.max_rows)

    def rows_now(self, now_ns: int) -> int:
        line = self.line
        while line:
            feasible = self.known.rows_within(line[0].deadline_ns - now_ns)
            if feasible >= min(self.aim, len(line)):
                return min(feasible, len(line), self.max_rows)
            self.dropped.append(line.popleft())
        return 0


class NexusLazy(NexusEarlyDrop):
    """Nexus' lazy drop: the largest batch that meets the deadline of the oldest request."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.aim = 1
