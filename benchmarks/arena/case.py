"""The result of one contestant with one work in one situation, the medians over rounds, and the comparison. Pure
functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

SITUATIONS = ("low", "saturation", "overload", "bursty", "double", "disturbed")
# Rates as shares of the capacity, the same for all contestants.
SHARES = {"low": 0.2, "overload": 2.0, "bursty": 0.6, "disturbed": 0.5}
OWN_SHARES = {"double": 2.0}  # of what the contestant itself reached at saturation
GOODPUT = ("overload", "bursty", "double", "disturbed")  # the situations in which answers in time count
# The share of the offline rate that counts as capacity: server and load generator use the same cores as the model.
SERVED = 0.6
# The highest capacity, for the no-op: the rate of the fastest servers at saturation.
MOST_PER_S = 8000.0
EQUAL = 0.05  # a smaller difference is noise on a shared machine
KEPT = 0.8  # of its own throughput a server should keep in time at twice that load
LATE = 0.1  # throughput within a tenth of the best meets the goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The result of one case. Latencies are of answered requests, from the planned instant. `others_cores`: the cores
    that other processes on the machine used."""

    contestant: str
    work: str
    situation: str
    planned_per_s: float
    throughput_per_s: float
    goodput_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # per answered request, of all processes of the server
    memory_mib: float
    others_cores: float
    is_generator_limit: bool
    rounds: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A contestant with all works loaded and without a request: the seconds until it was ready, the cores and the
    memory that its processes take."""

    contestant: str
    ready_s: float
    cores: float
    memory_mib: float


def rests_together(rests: Sequence[Rest]) -> list[Rest]:
    """Returns the medians over the rounds, in the order in which the contestants first appear."""
    names = dict.fromkeys(rest.contestant for rest in rests)
    return [_middle_rest([rest for rest in rests if rest.contestant == name]) for name in names]


def _middle_rest(rounds: Sequence[Rest]) -> Rest:
    return Rest(
        contestant=rounds[0].contestant,
        ready_s=median(rest.ready_s for rest in rounds),
        cores=median(rest.cores for rest in rounds),
        memory_mib=median(rest.memory_mib for rest in rounds),
    )


def kept(cases: Sequence[Case], work: str, contestant: str) -> float | None:
    """Returns the answers in time at twice its own capacity, as a share of that capacity; None if it has none."""
    full, double = (find(cases, work, situation, contestant) for situation in ("saturation", "double"))
    if full is None or double is None or not full.throughput_per_s:
        return None
    return double.goodput_per_s / full.throughput_per_s


def capacity(offline: Mapping[str, float]) -> dict[str, float]:
    """Returns the requests per second that count as full load, by work, from the models' rates without a server."""
    return {work: min(MOST_PER_S, SERVED * rows) for work, rows in offline.items()}


def draw_together(cases: Sequence[Case]) -> list[Case]:
    """Returns the medians over the rounds, in the order in which the cases first appear."""
    keys = dict.fromkeys((case.work, case.situation, case.contestant) for case in cases)
    return [_middle([case for case in cases if (case.work, case.situation, case.contestant) == key]) for key in keys]


def _middle(rounds: Sequence[Case]) -> Case:
    first = rounds[0]

    def of(name: str) -> float:
        values: list[float] = [getattr(case, name) for case in rounds]
        return median(values)

    return Case(
        contestant=first.contestant,
        work=first.work,
        situation=first.situation,
        planned_per_s=of("planned_per_s"),
        throughput_per_s=of("throughput_per_s"),
        goodput_per_s=of("goodput_per_s"),
        p50_ms=of("p50_ms"),
        p99_ms=of("p99_ms"),
        cpu_us=of("cpu_us"),
        memory_mib=of("memory_mib"),
        others_cores=of("others_cores"),
        is_generator_limit=2 * sum(case.is_generator_limit for case in rounds) > len(rounds),
        rounds=len(rounds),
    )


def find(cases: Sequence[Case], work: str, situation: str, contestant: str) -> Case | None:
    wanted = (work, situation, contestant)
    return next((case for case in cases if (case.work, case.situation, case.contestant) == wanted), None)


def losses(cases: Sequence[Case], titles: dict[str, str], ours: str = "headway") -> list[str]:
    """Returns every figure of every case in which another server is better than Headway by more than noise."""
    figures = (
        ("goodput per s", "goodput_per_s", True, ("overload", "bursty", "disturbed")),
        ("throughput per s", "throughput_per_s", True, ("saturation",)),
        ("p50 ms", "p50_ms", False, ("low", "bursty")),
        ("p99 ms", "p99_ms", False, ("low", "bursty")),
        ("CPU µs per request", "cpu_us", False, ("saturation",)),
        ("memory MiB", "memory_mib", False, ("saturation",)),
    )
    said = []
    for case in cases:
        base = find(cases, case.work, case.situation, ours)
        if base is None or case.contestant == ours:
            continue
        for name, field, is_high, situations in figures:
            mine, theirs = getattr(base, field), getattr(case, field)
            if case.situation not in situations or not theirs > 0:
                continue  # without answers there are no latency and no cost
            is_worse = mine < theirs * (1 - EQUAL) if is_high else mine > theirs * (1 + EQUAL)
            if is_worse:
                where = f"{case.work}, {case.situation}, {name}"
                said.append(f"{where}: {titles[case.contestant]} {theirs:,.0f}, Headway {mine:,.0f}.")
    return said


def missed_goals(cases: Sequence[Case], python: Sequence[str], ours: str = "headway") -> list[str]:
    """Returns the goals that Headway missed: best goodput in overload, in bursts and beside a disturbance, `KEPT` at
    twice its own capacity, throughput at saturation within a tenth of the best, and the least CPU per request among the
    Python servers."""
    said = []
    for work, situation in dict.fromkeys((case.work, case.situation) for case in cases):
        base = find(cases, work, situation, ours)
        field = [case for case in cases if (case.work, case.situation) == (work, situation) and case.contestant != ours]
        if base is None or not field:
            continue
        share = kept(cases, work, ours)
        if situation == "double" and share is not None and share < KEPT:
            said.append(f"{work}, twice its own capacity: {share:.2f} of that capacity is in time.")
        if situation in GOODPUT and situation not in OWN_SHARES:
            best = max(field, key=lambda case: case.goodput_per_s)
            if base.goodput_per_s < best.goodput_per_s * (1 - EQUAL):
                ratio = base.goodput_per_s / best.goodput_per_s
                said.append(f"{work}, {situation}: goodput is {ratio:.2f} of the best ({best.contestant}).")
        if situation == "saturation":
            best = max(field, key=lambda case: case.throughput_per_s)
            if base.throughput_per_s < best.throughput_per_s * (1 - LATE):
                ratio = base.throughput_per_s / best.throughput_per_s
                said.append(f"{work}, {situation}: throughput is {ratio:.2f} of the best ({best.contestant}).")
            answering = [case for case in field if case.contestant in python and case.cpu_us > 0]
            cheapest = min(answering, key=lambda case: case.cpu_us, default=None)
            if cheapest and base.cpu_us > cheapest.cpu_us * (1 + EQUAL):
                ratio = base.cpu_us / cheapest.cpu_us
                said.append(f"{work}, {situation}: CPU per request is {ratio:.2f} of {cheapest.contestant}'s.")
    return said
