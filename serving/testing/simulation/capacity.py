"""Finds the rate that a policy can sustain: the highest at which 99 % of the requests are answered in time."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from serving.testing.simulation.arrivals import Arrivals
from serving.testing.simulation.executor import simulate
from serving.testing.simulation.laws import Device, Setting
from serving.testing.simulation.measures import Measures, measure
from serving.testing.simulation.policy import Policy
from serving.testing.simulation.workload import Stream, Workload, single

WANTED_IN_TIME = 0.99
MakePolicy = Callable[[], Policy]


@lru_cache(maxsize=64)
def _workload(setting: Setting, arrivals: Arrivals, load: float, lanes: int, count: int, seed: int) -> Workload:
    rate = load * setting.capacity_per_ms(lanes)
    return single(count, seed, Stream(rate_per_ms=rate, budget_ns=setting.budget_ns, arrivals=arrivals))


def run_at(
    setting: Setting, make: MakePolicy, arrivals: Arrivals, load: float, *, count: int, seed: int, lanes: int = 1
) -> Measures:
    """Runs a policy at this share of the fluid capacity."""
    workload = _workload(setting, arrivals, load, lanes, count, seed)
    return measure(workload, simulate(workload, make(), Device(law=setting.law), lanes=lanes, seed=seed))


def sustainable_load(
    setting: Setting,
    make: MakePolicy,
    arrivals: Arrivals,
    *,
    count: int,
    seeds: Sequence[int],
    steps: int = 8,
    lanes: int = 1,
    low: float = 0.2,
    high: float = 1.0,
) -> float:
    """Bisects for the highest sustainable rate, as a share of the fluid capacity. The share in time is the mean over
    the seeds."""
    for _ in range(steps):
        middle = (low + high) / 2
        shares = [
            run_at(setting, make, arrivals, middle, count=count, seed=seed, lanes=lanes).in_time for seed in seeds
        ]
        if sum(shares) >= WANTED_IN_TIME * len(seeds):
            low = middle
        else:
            high = middle
    return low
