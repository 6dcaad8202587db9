"""A server's process around a policy: it reads each request before the policy sees it, on a disturbed machine.

Reading takes CPU time and happens in order of arrival. In front, as HAProxy does (`cluster/haproxy/intake.py`),
requests beyond the replica's own bound are refused before they cost anything. With several tenants, only those of
tenants that have their share of the places are refused; the others wait for the next free place.
"""

from collections import Counter, deque
from dataclasses import dataclass
from random import Random

from serving.core.intake import Intake
from serving.core.request import Request
from serving.testing.simulation.laws import Device
from serving.testing.simulation.machine import Machine
from serving.testing.simulation.policy import Policy, Work
from serving.testing.simulation.workload import Workload

RESERVE = 8  # as HAProxy keeps free


@dataclass(frozen=True, slots=True, kw_only=True)
class DisturbedDevice(Device):
    """A device whose batches take the time of the machine that computes them."""

    machine: Machine

    def took_ns(self, rows: int, length: int, now_ns: int, rng: Random) -> int:
        work_ns = Device.took_ns(self, rows, length, now_ns, rng)
        return max(1, self.machine.spend(now_ns, work_ns) - now_ns)


class Host:
    """A policy in a process.

    machine: what reads requests, `reading_ns` each. intake: the bound on requests in flight; None for a server without.
    reserve: tenants that have their share are refused while fewer than one in so many places is free; 0: while none is.
    """

    def __init__(
        self,
        policy: Policy,
        machine: Machine,
        reading_ns: int,
        intake: Intake | None = None,
        *,
        reserve: int = RESERVE,
    ) -> None:
        self.prefetches = policy.prefetches
        self.wake_ns: int | None = None
        self.dropped: list[Request] = []
        self._policy = policy
        self._machine = machine
        self._reading_ns = reading_ns
        self._intake = intake
        self._unread: deque[tuple[int, Request]] = deque()  # with the instants at which they will have been read
        self._reserve = reserve
        self._inside: Counter[str] = Counter()  # requests by tenant; all tenants that ever asked have an entry
        self._outside: deque[Request] = deque()  # waiting for a place

    def arrive(self, request: Request, now_ns: int) -> bool:
        self._inside[request.tenant] += 0
        if self._is_refused(request.tenant):
            return False
        self._outside.append(request)
        self._let_in(now_ns)
        return True

    def _is_refused(self, tenant: str) -> bool:
        if self._intake is None:
            return False
        places, inside, tenants = self._intake.bound, self._inside.total(), len(self._inside)
        free = places - inside - len(self._outside)
        if tenants == 1:
            return free <= 0
        is_scarce = free * self._reserve < places if self._reserve else free <= 0
        return is_scarce and (self._inside[tenant] + 1) * tenants > places

    def _let_in(self, now_ns: int) -> None:
        while self._outside and (self._intake is None or self._inside.total() < self._intake.bound):
            self._enter(self._outside.popleft(), now_ns)

    def _enter(self, request: Request, now_ns: int) -> None:
        begins_ns = max(now_ns, self._unread[-1][0] if self._unread else 0)
        self._unread.append((self._machine.spend(begins_ns, self._reading_ns), request))
        self._inside[request.tenant] += 1
        self._wake()

    def next(self, lane: int, now_ns: int) -> Work | None:
        self._read(now_ns)
        work = self._policy.next(lane, now_ns)
        self._give_up(self._policy.dropped, now_ns)
        self._policy.dropped.clear()
        self._wake()
        return work

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None:
        self._policy.done(work, now_ns, failed=failed)
        late = sum(request.deadline_ns < now_ns for request in work.requests)
        self._left(work.requests, now_ns, missed=late)

    def cancel(self, request: Request, now_ns: int) -> bool:
        raise NotImplementedError("clients of a simulated host do not hang up")

    def _read(self, now_ns: int) -> None:
        """Passes on the requests that have been read by now."""
        if self._policy.wake_ns is not None and self._policy.wake_ns <= now_ns:
            self._policy.wake_ns = None
        while self._unread and self._unread[0][0] <= now_ns:
            request = self._unread.popleft()[1]
            if not self._policy.arrive(request, now_ns):
                self._give_up([request], now_ns)

    def _give_up(self, requests: list[Request], now_ns: int) -> None:
        if requests:
            self.dropped += requests
            self._left(requests, now_ns, missed=len(requests))

    def _left(self, requests: list[Request], now_ns: int, *, missed: int) -> None:
        if self._intake is not None:
            self._intake.ended(now_ns, self._inside.total(), completed=len(requests) - missed, missed=missed)
        self._inside.subtract(request.tenant for request in requests)
        self._let_in(now_ns)

    def _wake(self) -> None:
        instants = [self._unread[0][0]] if self._unread else []
        if self._policy.wake_ns is not None:
            instants.append(self._policy.wake_ns)
        self.wake_ns = min(instants, default=None)


def possible(workload: Workload, machine: Machine, row_ns: float) -> list[bool]:
    """Returns for each request of one row whether it could be answered in time by who knows the future.

    It is an upper bound: reading takes no time, and every row only as long as in a batch of the best size. Since all
    rows take equally long and have equal budgets, it is best to serve in order and to skip what would be late.
    """
    free_ns = 0
    found = []
    for request in workload.requests:
        start_ns = max(free_ns, request.arrived_ns)
        fits = machine.done_ns(start_ns, int(row_ns)) <= request.deadline_ns
        if fits:
            free_ns = machine.spend(start_ns, int(row_ns))
        found.append(fits)
    return found
