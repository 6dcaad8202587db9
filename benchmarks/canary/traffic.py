"""Drawn traffic for many releases at once: how many requests each version gets in a while, and how they end."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log

import numpy as np

from serving.core.octaves import PER_OCTAVE, bucket_of

MEDIAN_NS = 20e6
FIRST = bucket_of(MEDIAN_NS)  # also for all that is faster, which no test looks at
BUCKETS = 5 * PER_OCTAVE


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A candidate beside a stable version.

    errors, stable_errors: the shares of requests that fail. slower: the factor by which the candidate's answers take
    longer. spread: the standard deviation of the logarithm of latencies. per_minute: requests to both together."""

    errors: float
    stable_errors: float
    slower: float = 1.0
    spread: float = 0.3
    per_minute: float = 1000.0


@dataclass(frozen=True)
class Arm:
    """The requests of one version in one tick, by release. latency: of all answers; run: whose release each is of."""

    computed: np.ndarray
    failed: np.ndarray
    run: np.ndarray
    latency: np.ndarray


def ticks(
    scenario: Scenario, share: float, runs: int, random: np.random.Generator, every_s: int = 1
) -> Iterator[tuple[Arm, Arm]]:
    """Yields the requests of the candidate and of the stable version of `runs` releases, in ticks of `every_s`."""
    rate = scenario.per_minute / 60 * every_s
    while True:
        yield (
            _arm(rate * share, scenario.errors, scenario.slower, scenario.spread, runs, random),
            _arm(rate * (1 - share), scenario.stable_errors, 1.0, scenario.spread, runs, random),
        )


def _arm(rate: float, errors: float, slower: float, spread: float, runs: int, random: np.random.Generator) -> Arm:
    computed = random.poisson(rate, runs)
    failed = random.binomial(computed, errors)
    run = np.repeat(np.arange(runs), computed - failed)
    octaves = (log(slower * MEDIAN_NS / 1000) + spread * random.standard_normal(len(run))) / log(2)
    latency = np.clip(np.ceil(PER_OCTAVE * octaves).astype(np.int64), FIRST, FIRST + BUCKETS - 1)
    return Arm(computed, failed, run, latency)
