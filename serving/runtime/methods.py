"""The queue of requests for a model's own `prepare` and `finish`, which run in threads.

Which request is prepared next, and when, is decided by `core/preparing.py`. A request leaves at once if it is withdrawn
or can no longer be in time. The module does not know what the methods compute.

A call cannot be interrupted, so turns alone do not help against slow ones: those of one tenant would be in every thread
most of the time. While several tenants ask, one whose calls are slow has at most half of the threads.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from serving.core.clock import Clock
from serving.core.preparing import Preparing
from serving.core.request import Request
from serving.runtime.calls import Call, CallThreads

SWEEP_S = 0.05  # how often deadlines are checked while requests wait, unless the latency budget asks for more
SLOW_NS = 5_000_000  # others hardly notice a call that is shorter
LATELY_NS = 10_000_000_000  # a tenant that asked within this time is expected to ask again
MOST_SLOW = 4096  # tenants remembered as slow


class MethodThreads:
    """The threads of one model for its `prepare` and `finish`, and the queue in front of them.

    count: the number of threads. preparing: the requests that wait for them.
    on_expired: called with the requests whose deadlines passed before they were prepared, and the time.
    limit_s, on_stuck: see `CallThreads`.
    """

    def __init__(
        self,
        count: int,
        name: str,
        clock: Clock,
        preparing: Preparing,
        *,
        limit_s: float,
        on_expired: Callable[[Sequence[Request], int], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._on_expired = on_expired
        self._preparing = preparing
        self._prepares: dict[Request, Call] = {}  # the requests that wait or are being prepared
        self._finishes: deque[Call] = deque()
        self._slow: dict[str, None] = {}  # the tenants whose last call was slow
        self._asked = ("", 0)  # the tenant that asked last, and when
        self._asked_before = ("", 0)  # the same of the last other tenant
        self._half = max(1, count // 2)
        names = [f"prepare-{name}-{index}" for index in range(count)]
        self._threads = CallThreads(names, clock, self._next_call, limit_s=limit_s, on_stuck=on_stuck)
        self._sweeper: asyncio.TimerHandle | None = None

    def open(self, *, budget_ns: int | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweep_s = SWEEP_S if budget_ns is None else min(SWEEP_S, max(0.005, budget_ns / 4e9))
        self._threads.open()

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._threads.close()

    def is_alive(self) -> bool:
        return self._threads.is_alive()

    def prepare(self, request: Request, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Queues the request. `work` runs in a thread when it is the request's turn; `then` gets its result on the
        event loop."""

        def prepared(result: Any) -> None:
            del self._prepares[request]
            self._preparing.took(max(0, self._clock.now_ns() - call.began_ns))
            self._preparing.remove(request)
            then(result)

        if request.tenant:
            self._note(request.tenant)
            work = partial(self._timed, request.tenant, work)
        call = self._prepares[request] = Call(work, prepared, request.tenant)
        self._preparing.add(request)
        self._threads.fill()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    def fill(self) -> None:
        """Hands out what is to be prepared now; called when requests have left the queue of prepared ones."""
        if self._preparing.waiting:
            self._threads.fill()

    def finish(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Queues `work` ahead of every `prepare`, since requests to be finished have waited the longest. `then` gets
        its result on the event loop."""
        self._finishes.append(Call(work, then))
        self._threads.fill()

    def withdraw(self, request: Request) -> None:
        """Drops the request, unless it has been prepared already. A `prepare` that runs is not interrupted."""
        call = self._prepares.pop(request, None)
        if call is not None:
            call.forget()
            self._preparing.remove(request)

    def _next_call(self) -> Call | None:
        if self._finishes:
            return self._finishes.popleft()
        request = self._preparing.next(self._clock.now_ns(), self._may)
        return None if request is None else self._prepares[request]

    def _may(self, tenant: str) -> bool:
        return not (self._slow and self._has_its_half(tenant))

    def _has_its_half(self, tenant: str) -> bool:
        """Returns whether the tenant is slow, has as many calls under way as half of the threads, and others ask."""
        if tenant not in self._slow:
            return False
        under_way = sum(call.tenant == tenant for call in self._threads.handed_out)
        return under_way >= self._half and self._are_others_expected(tenant)

    def _are_others_expected(self, tenant: str) -> bool:
        name, asked_ns = self._asked if self._asked[0] != tenant else self._asked_before
        return bool(name) and self._clock.now_ns() - asked_ns < LATELY_NS

    def _note(self, tenant: str) -> None:
        """Notes that the tenant asks now."""
        if tenant != self._asked[0]:
            self._asked_before = self._asked
        self._asked = tenant, self._clock.now_ns()

    def _timed(self, tenant: str, work: Callable[[], Any]) -> Any:
        """Does the work, and notes whether it was slow. Runs in a thread, also for a request withdrawn meanwhile."""
        began_ns = self._clock.now_ns()
        try:
            return work()
        finally:
            if self._clock.now_ns() - began_ns < SLOW_NS:
                self._slow.pop(tenant, None)
            elif len(self._slow) < MOST_SLOW:
                self._slow[tenant] = None

    def _sweep(self) -> None:
        """Reports expired requests, even while each thread is busy with a long `prepare`."""
        now_ns = self._clock.now_ns()
        due = self._preparing.late(now_ns)
        if due:
            self._on_expired(due, now_ns)
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep) if self._prepares else None
