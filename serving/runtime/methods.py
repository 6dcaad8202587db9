"""The queue of requests for a model's own `prepare` and `finish`, which run in threads.

Requests are ordered as in the main queue: tenants take turns, and the requests of a tenant are ordered by rank. A
request leaves at once if it is withdrawn or its deadline passes. The module does not know what the methods compute.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from serving.core.clock import Clock
from serving.core.queue import RequestQueue, Shape
from serving.core.request import Request
from serving.runtime.calls import Call, CallThreads

SWEEP_S = 0.05  # how often deadlines are checked while requests wait, unless the latency budget asks for more
ANY_SHAPE: Shape = (None, 1)


class MethodThreads:
    """The threads of one model for its `prepare` and `finish`, and the queue in front of them.

    count: the number of threads.
    on_expired: called with the requests whose deadlines passed before they were prepared, and the time.
    limit_s, on_stuck: see `CallThreads`.
    """

    def __init__(
        self,
        count: int,
        name: str,
        clock: Clock,
        *,
        limit_s: float,
        on_expired: Callable[[Sequence[Request], int], None],
        on_stuck: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._on_expired = on_expired
        self._to_prepare = RequestQueue()
        self._prepares: dict[Request, Call] = {}  # the requests that wait or are being prepared
        self._finishes: deque[Call] = deque()
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
            then(result)

        self._prepares[request] = Call(work, prepared)
        self._to_prepare.add(request, ANY_SHAPE)
        self._threads.fill()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

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
            self._to_prepare.remove(request, ANY_SHAPE)

    def _next_call(self) -> Call | None:
        if self._finishes:
            return self._finishes.popleft()
        if self._to_prepare:
            return self._prepares[self._next_to_prepare()]
        return None

    def _next_to_prepare(self) -> Request:
        """Returns the first request by rank of the tenant whose last turn was longest ago."""
        by_tenant = self._to_prepare.lines[ANY_SHAPE]
        tenant = next(iter(by_tenant))
        (request,) = self._to_prepare.take(ANY_SHAPE, tenant, 0, 1)
        if tenant in by_tenant:
            by_tenant[tenant] = by_tenant.pop(tenant)
        return request

    def _sweep(self) -> None:
        """Reports expired requests, even while each thread is busy with a long `prepare`."""
        now_ns = self._clock.now_ns()
        due = [request for request in self._prepares if request.deadline_ns < now_ns]
        if due:
            self._on_expired(due, now_ns)
        self._sweeper = self._loop.call_later(self._sweep_s, self._sweep) if self._prepares else None
