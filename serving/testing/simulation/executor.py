"""Executes a simulation: feeds arrivals to a policy, runs its batches on the lanes, and records the outcome of each
request.

Every policy gets the same device: a lane computes one batch at a time, switching costs nothing, and the n-th batch of
a run gets the same noise.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from random import Random

from serving.testing.simulation.laws import Device
from serving.testing.simulation.policy import Policy, Work
from serving.testing.simulation.workload import Workload

NEVER = 1 << 62


class End(IntEnum):
    NONE = 0
    COMPLETED = 1
    DROPPED = 2
    CANCELLED = 3
    REFUSED = 4
    FAILED = 5


@dataclass(slots=True)
class Run:
    """The record of one run. ends and finished_ns are by request; busy_ns and late_ns are device time."""

    ends: list[End]
    finished_ns: list[int]
    busy_ns: int = 0
    late_ns: float = 0.0  # spent on requests whose answer came too late
    batches: int = 0
    rows: int = 0
    useful_cells: int = 0  # rows x length of requests
    padded_cells: int = 0  # rows x length computed, including padding
    started_expired: int = 0  # requests whose deadline had passed when their batch began
    answered_twice: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    services: list[tuple[int, dict[str, float]]] = field(default_factory=list)  # (finished at, device time by tenant)

    def end(self, index: int, how: End, now_ns: int) -> None:
        if self.ends[index] is not End.NONE:
            self.answered_twice += 1
        self.ends[index] = how
        self.finished_ns[index] = now_ns


class Simulation:
    def __init__(self, workload: Workload, policy: Policy, device: Device, *, lanes: int = 1, seed: int = 0) -> None:
        self._workload = workload
        self._policy = policy
        self._device = device
        self._rng = Random(f"device/{seed}")
        self._lanes: list[deque[Work]] = [deque() for _ in range(lanes)]
        self._finishes: list[tuple[int, int, int, int, bool]] = []  # (at, order, lane, started, failed)
        count = len(workload.requests)
        self._hung_up: set[int] = set()
        self.run = Run([End.NONE] * count, [-1] * count)

    def play(self) -> Run:
        requests, hang_ups = self._workload.requests, self._workload.hang_ups
        policy, finishes, lanes = self._policy, self._finishes, self._lanes
        arrived, hung = 0, 0
        while True:
            arrival_ns = requests[arrived].arrived_ns if arrived < len(requests) else NEVER
            finish_ns = finishes[0][0] if finishes else NEVER
            hang_up_ns = hang_ups[hung][0] if hung < len(hang_ups) else NEVER
            wake_ns = policy.wake_ns if policy.wake_ns is not None else NEVER
            now_ns = min(arrival_ns, finish_ns, hang_up_ns, wake_ns)
            if now_ns == NEVER:
                return self.run
            if finish_ns == now_ns:
                self._finish()
            elif arrival_ns == now_ns:
                request = requests[arrived]
                arrived += 1
                if not policy.arrive(request, now_ns):
                    self.run.end(request.id, End.REFUSED, now_ns)
            elif hang_up_ns == now_ns:
                self._hang_up(hang_ups[hung][1], now_ns)
                hung += 1
            else:
                policy.wake_ns = None
            for lane, queued in enumerate(lanes):
                while not queued or policy.prefetches:
                    work = policy.next(lane, now_ns)
                    if policy.dropped:
                        for request in policy.dropped:
                            self.run.end(request.id, End.DROPPED, now_ns)
                        policy.dropped.clear()
                    if work is None:
                        break
                    queued.append(work)
                    if len(queued) == 1:
                        self._start(lane, now_ns)

    def _start(self, lane: int, now_ns: int) -> None:
        work = self._lanes[lane][0]
        run = self.run
        took_ns = self._device.took_ns(work.padded_rows, work.length, now_ns, self._rng)
        heappush(self._finishes, (now_ns + took_ns, run.batches, lane, now_ns, self._device.fails(self._rng)))
        run.batches += 1
        run.batch_sizes.append(len(work.requests))
        run.busy_ns += took_ns
        run.padded_cells += work.padded_rows * work.length
        run.started_expired += sum(request.deadline_ns < now_ns for request in work.requests)

    def _finish(self) -> None:
        now_ns, _, lane, started_ns, failed = heappop(self._finishes)
        work = self._lanes[lane].popleft()
        run = self.run
        rows = sum(request.rows for request in work.requests)
        share_ns = (now_ns - started_ns) / rows
        run.rows += rows
        how = End.FAILED if failed else End.COMPLETED
        by_tenant: dict[str, float] = {}
        for request in work.requests:
            run.useful_cells += request.rows * request.length
            by_tenant[request.tenant] = by_tenant.get(request.tenant, 0.0) + share_ns * request.rows
            if now_ns > request.deadline_ns:
                run.late_ns += share_ns * request.rows
            if request.id not in self._hung_up:
                run.end(request.id, how, now_ns)
        run.services.append((now_ns, by_tenant))
        self._policy.done(work, now_ns, failed=failed)
        if self._lanes[lane]:
            self._start(lane, now_ns)

    def _hang_up(self, index: int, now_ns: int) -> None:
        if self.run.ends[index] is End.NONE:
            self._policy.cancel(self._workload.requests[index], now_ns)
            self._hung_up.add(index)
            self.run.end(index, End.CANCELLED, now_ns)


def simulate(workload: Workload, policy: Policy, device: Device, *, lanes: int = 1, seed: int = 0) -> Run:
    return Simulation(workload, policy, device, lanes=lanes, seed=seed).play()
