"""Two nonparametric tests of whether a difference between two results is significant.

Pure functions. Random numbers are seeded, so that the same files always get the same verdict."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")

ALPHA = 0.05
LEAST_RUNS = 4  # of each result: with three, even completely separated results have p = 0.1
_EXACT = 20_000  # up to this number of permutations, all are tried
_DRAWS = 1000


def rank_test(before: Sequence[float], after: Sequence[float]) -> float:
    """Returns the two-sided p-value of the rank-sum test (Wilcoxon 1945, Mann and Whitney 1947), by permutation: the
    share of all divisions of the runs in two groups whose rank sums differ at least as much. Exact for few runs."""
    ranks = _ranks([*before, *after])
    count, total = len(before), len(ranks)
    expected = count * (total + 1) / 2
    seen = abs(sum(ranks[:count]) - expected) - 1e-9
    if math.comb(total, count) <= _EXACT:
        deals: Sequence[Sequence[float]] = list(combinations(ranks, count))
    else:
        generator = random.Random(0)
        deals = [generator.sample(ranks, count) for _ in range(_EXACT)]
    return sum(abs(sum(deal) - expected) >= seen for deal in deals) / len(deals)


def _ranks(values: Sequence[float]) -> list[float]:
    """Returns the rank of each value, 1 for the smallest. Equal values get the mean of their ranks."""
    order = sorted(values)
    first = {value: position for position, value in reversed(list(enumerate(order, start=1)))}
    last = {value: position for position, value in enumerate(order, start=1)}
    return [(first[value] + last[value]) / 2 for value in values]


def bootstrap_ratio(
    before: Sequence[T], after: Sequence[T], figure: Callable[[Sequence[T]], float], seed: int = 0
) -> tuple[float, float]:
    """Returns the 95 % interval of `figure(after) / figure(before)` by a block bootstrap (Künsch 1989). Blocks of
    consecutive windows are resampled, because neighbouring seconds are correlated."""
    generator = random.Random(seed)
    ratios = []
    for _ in range(_DRAWS):
        base = figure(_resampled(before, generator))
        ratios.append(_ratio(figure(_resampled(after, generator)), base))
    ratios.sort()
    return ratios[round(_DRAWS * ALPHA / 2)], ratios[round(_DRAWS * (1 - ALPHA / 2)) - 1]


def _ratio(value: float, base: float) -> float:
    if value == base:  # includes two infinities and two zeros
        return 1.0
    return value / base if base else math.inf


def _resampled(windows: Sequence[T], generator: random.Random) -> list[T]:
    length = max(1, round(len(windows) ** (1 / 3)))
    drawn: list[T] = []
    while len(drawn) < len(windows):
        start = generator.randrange(len(windows) - length + 1)
        drawn += windows[start : start + length]
    return drawn[: len(windows)]


def at_least(held: int, runs: int) -> float:
    """Returns the lower bound of the share of runs in which an objective is met, with 95 % confidence, given that it
    was met in `held` of `runs` (Clopper and Pearson 1934, one-sided)."""
    if held == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        chance = sum(math.comb(runs, k) * middle**k * (1 - middle) ** (runs - k) for k in range(held, runs + 1))
        low, high = (middle, high) if chance < ALPHA else (low, middle)
    return low
