"""Disturbances of a server in simulation: the same load on the same machine before, during and after each of them.

`python -m benchmarks.disturbed.simulated` runs all of them, the tests a few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from serving.core.intake import Intake, least_in_flight
from serving.testing.simulation.baselines import Drop, Timeout
from serving.testing.simulation.executor import End, Run, simulate
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.host import DisturbedDevice, Host, possible
from serving.testing.simulation.laws import Affine, Setting
from serving.testing.simulation.machine import (
    MS,
    SECOND,
    Machine,
    Quota,
    Shared,
    beside_a_neighbour,
    between,
    slower,
    stalling,
    whole,
)
from serving.testing.simulation.policy import Policy
from serving.testing.simulation.workload import Stream, Workload, single

# The MLP of the arena on two cores of which one computes and one reads, as measured on a slow machine.
MLP = Setting(name="mlp", law=Affine(0.2, 5.0), budget_ms=50.0, max_rows=128)
READING_NS = 90_000
LEAD_NS = 300_000
NOISE = 0.05
HALF = 0.5
WINDOW_NS = 500 * MS  # over which recovery is judged
RECOVERED = 0.95
SETTLED = 2  # windows in a row


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores that the server's process runs on: one computes, the other reads.

    pace: the share of its time that the computing core gives while the process is not standing altogether.
    """

    computing: Machine
    reading: Machine
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Span:
    """The time of a disturbance within a run."""

    start_ns: int
    end_ns: int
    total_ns: int

    @classmethod
    def of(cls, before_s: float, during_s: float, after_s: float) -> "Span":
        start_ns, end_ns = int(before_s * SECOND), int((before_s + during_s) * SECOND)
        return cls(start_ns, end_ns, end_ns + int(after_s * SECOND))


Disturbance = Callable[[Span, int], Cores]


def calm(span: Span, seed: int) -> Cores:
    return Cores(Shared(whole()), Shared(whole()))


def neighbours(span: Span, seed: int, niceness: int = 0) -> Cores:
    """Returns cores that each have a busy process too. niceness: of the computing thread."""

    def core(name: str, nice: int) -> Machine:
        return Shared(between(span.start_ns, span.end_ns, beside_a_neighbour(Random(f"{name}/{seed}"), nice)))

    return Cores(core("computing", niceness), core("reading", 0), HALF)


def giving_way(span: Span, seed: int) -> Cores:
    """Returns the cores with neighbours for a computing thread of niceness 5, as decision 15 had it."""
    return neighbours(span, seed, niceness=5)


def quota(span: Span, seed: int) -> Cores:
    """Returns the cores of a container that may use half a core."""
    container = Quota(HALF, span.start_ns, span.end_ns)
    return Cores(container, container)


def stalls(span: Span, seed: int) -> Cores:
    """Returns cores on which the whole process stands for 50 ms, twice per second."""

    def core() -> Machine:
        return Shared(between(span.start_ns, span.end_ns, stalling(Random(f"stalls/{seed}"))))

    return Cores(core(), core())


def half_speed(span: Span, seed: int) -> Cores:
    """Returns cores that are half as fast for a while."""

    def core() -> Machine:
        return Shared(between(span.start_ns, span.end_ns, slower(HALF)))

    return Cores(core(), core(), HALF)


DISTURBANCES: Mapping[str, Disturbance] = {
    "none": calm,
    "a busy neighbour per core": neighbours,
    "the same, computing at niceness 5": giving_way,
    "a quota of half a core": quota,
    "stalls of 50 ms": stalls,
    "half as fast for a while": half_speed,
}
# Who gives way is measured by what the cores would have given otherwise.
AT_BEST = {"the same, computing at niceness 5": "a busy neighbour per core"}


def headway(container: Quota | None) -> tuple[Policy, Intake]:
    """Returns the server's own policy, and its bound on requests in flight."""
    policy = Headway(
        MLP.law, MLP.max_rows, batches_per_lane=2, lead_ns=LEAD_NS, budget_ns=MLP.budget_ns, container=container
    )
    least = partial(least_in_flight, policy.batcher.latency, policy.batcher.sizes, MLP.budget_ns)
    return policy, Intake(MLP.budget_ns, cheap=True, least=least, pace=policy.batcher.pace)


def greedy(container: Quota | None) -> tuple[Policy, None]:
    return Timeout(MLP, max_rows=64), None


def greedy_dropping(container: Quota | None) -> tuple[Policy, None]:
    return Timeout(MLP, max_rows=64, drop=Drop.INFEASIBLE), None


Server = Callable[[Quota | None], tuple[Policy, Intake | None]]

SERVERS: Mapping[str, Server] = {
    "Headway": headway,
    "greedy, no drop": greedy,
    "greedy, drop infeasible": greedy_dropping,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answers in time. of_possible: during the disturbance, as a share of what the bound allows. of_asked: as a
    share of what was asked. recovered_s: from the end of the disturbance until two windows in a row reach 0.95 of what
    the server had before it; infinite if none do."""

    of_possible: float
    of_asked: float
    recovered_s: float


def play(server: str, disturbance: str, load: float, span: Span, seed: int) -> Answered:
    """Simulates a server. load: requests as a share of the capacity without a disturbance."""
    rate = load * MLP.capacity_per_ms()
    stream = Stream(rate_per_ms=rate, budget_ns=MLP.budget_ns)
    workload = single(int(rate * span.total_ns / MS), seed, stream)
    cores = DISTURBANCES[disturbance](span, seed)
    policy, intake = SERVERS[server](cores.computing if isinstance(cores.computing, Quota) else None)
    host = Host(policy, cores.reading, READING_NS, intake)
    run = simulate(workload, host, DisturbedDevice(law=MLP.law, noise=NOISE, machine=cores.computing), seed=seed)
    return judge(workload, run, _bound(workload, disturbance, span, seed), span)


def _bound(workload: Workload, disturbance: str, span: Span, seed: int) -> list[bool]:
    """Returns which requests could be in time, in batches of the size that is best at the pace of the disturbed cores.

    Of a container with a quota, reading takes its part too."""
    cores = DISTURBANCES[AT_BEST.get(disturbance, disturbance)](span, seed)
    reading_ns = READING_NS if cores.computing is cores.reading else 0
    return possible(workload, cores.computing, _row_ns(cores.pace) + reading_ns)


def judge(workload: Workload, run: Run, bound: Sequence[bool], span: Span) -> Answered:
    in_time = [
        run.ends[request.id] is End.COMPLETED and run.finished_ns[request.id] <= request.deadline_ns
        for request in workload.requests
    ]
    during = [
        request.id for request in workload.requests if span.start_ns <= request.arrived_ns < span.end_ns - MLP.budget_ns
    ]
    return Answered(
        of_possible=_share(in_time, bound, during),
        of_asked=sum(in_time[index] for index in during) / max(1, len(during)),
        recovered_s=_recovered_s(workload, in_time, bound, span),
    )


def _recovered_s(workload: Workload, in_time: Sequence[bool], bound: Sequence[bool], span: Span) -> float:
    before = _share(in_time, bound, [one.id for one in workload.requests if one.arrived_ns < span.start_ns])
    windows: list[list[int]] = [[] for _ in range((span.total_ns - span.end_ns) // WINDOW_NS)]
    for request in workload.requests:
        window = (request.arrived_ns - span.end_ns) // WINDOW_NS
        if 0 <= window < len(windows):
            windows[window].append(request.id)
    good = [_share(in_time, bound, window) >= RECOVERED * before for window in windows]
    for window in range(len(windows) - SETTLED + 1):
        if all(good[window : window + SETTLED]):
            return window * WINDOW_NS / SECOND
    return float("inf")


def _share(in_time: Sequence[bool], bound: Sequence[bool], of: Sequence[int]) -> float:
    """Returns the answers in time as a share of what the bound allows, of these requests."""
    return sum(in_time[index] for index in of) / max(1, sum(bound[index] for index in of))


def _row_ns(pace: float) -> float:
    """Returns the CPU time per row in batches that take half of the budget at this pace, the largest that can all be in
    time."""
    rows = (MLP.budget_ms * pace / 2 - MLP.law.beta_ms) / MLP.law.alpha_ms
    return MLP.law.mean_ns(int(rows)) / int(rows)
