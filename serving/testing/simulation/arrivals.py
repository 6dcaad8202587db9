"""Arrivals of requests: seeded instants in milliseconds at a mean rate of 1 per ms; `scaled` converts to another rate.

Scaling one sequence makes results at different rates comparable, so that a bisection sees a nearly smooth curve.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from math import pi, sin
from pathlib import Path
from random import Random

Arrivals = Callable[[Random, int], list[float]]


def poisson(rng: Random, count: int) -> list[float]:
    return _accumulate(rng.expovariate(1.0) for _ in range(count))


def gamma(variation: float) -> Arrivals:
    """Returns arrivals with gaps of this coefficient of variation; above 1 they come in bursts."""
    shape = 1.0 / variation**2

    def arrivals(rng: Random, count: int) -> list[float]:
        return _accumulate(rng.gammavariate(shape, 1.0 / shape) for _ in range(count))

    return arrivals


def bursty(dwell: float, ratio: float = 3.0) -> Arrivals:
    """Returns arrivals of two Poisson states (MMPP2), each `dwell` mean gaps long on average, one with `ratio` times
    the rate of the other."""
    calm = 2.0 / (1.0 + ratio)

    def arrivals(rng: Random, count: int) -> list[float]:
        def instants() -> Iterator[float]:
            now, rate = 0.0, calm
            state_ends = rng.expovariate(1.0 / dwell)
            while True:
                following = now + rng.expovariate(rate)
                if following < state_ends:
                    now = following
                    yield now
                    continue
                now, rate = state_ends, calm * ratio if rate == calm else calm
                state_ends = now + rng.expovariate(1.0 / dwell)

        return list(islice(instants(), count))

    return arrivals


def step(factor: float, first: float = 0.4, last: float = 0.6) -> Arrivals:
    """Returns arrivals with `factor` times the rate in the middle of the run, between these shares of its requests."""

    def arrivals(rng: Random, count: int) -> list[float]:
        rates = (factor if first <= index / count < last else 1.0 for index in range(count))
        return _accumulate(rng.expovariate(rate) for rate in rates)

    return arrivals


def sinusoid(swing: float, period: float) -> Arrivals:
    """Returns arrivals whose rate oscillates by this share around its mean, with this period in mean gaps."""

    def arrivals(rng: Random, count: int) -> list[float]:
        def instants() -> Iterator[float]:
            now = 0.0
            while True:
                now += rng.expovariate(1.0 + swing)
                if rng.random() * (1.0 + swing) < 1.0 + swing * sin(2 * pi * now / period):
                    yield now

        return list(islice(instants(), count))

    return arrivals


def replay(path: Path) -> Arrivals:
    """Returns arrivals from a file, one number per line in any unit, scaled to mean rate 1; the seed has no effect."""
    numbers = sorted(float(line) for line in path.read_text().split())
    gap = (numbers[-1] - numbers[0]) / max(len(numbers) - 1, 1)

    def arrivals(rng: Random, count: int) -> list[float]:
        return [(number - numbers[0]) / gap for number in numbers[:count]]

    return arrivals


def scaled(instants_ms: list[float], rate_per_ms: float) -> list[int]:
    """Scales instants to this rate. Returns whole nanoseconds."""
    factor = 1e6 / rate_per_ms
    return [int(instant * factor) for instant in instants_ms]


def _accumulate(gaps: Iterator[float]) -> list[float]:
    now = 0.0
    instants = []
    for gap in gaps:
        now += gap
        instants.append(now)
    return instants
