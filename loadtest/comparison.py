"""Compares two results, figure by figure, and tests whether each difference is significant. Pure functions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.objective import quantile_ms
from loadtest.result import Result
from loadtest.significance import ALPHA, LEAST_RUNS, bootstrap_ratio, rank_test
from loadtest.tally import Tally, together

_LEAST_WINDOWS = 8  # seconds; fewer are too few for the bootstrap

Windows = Sequence[Tally]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure to compare. `of` computes it from the windows of a run."""

    name: str
    of: Callable[[Windows], float]
    is_better_low: bool


# Rates are per second of planned time, since each window is one second of it.
FIGURES = (
    Figure("goodput per s", lambda windows: together(windows).in_time / len(windows), False),
    Figure("throughput per s", lambda windows: together(windows).answered / len(windows), False),
    Figure("p50 ms", lambda windows: quantile_ms(together(windows), 0.5), True),
    Figure("p99 ms", lambda windows: quantile_ms(together(windows), 0.99), True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference in one figure. `ratio`: after / before. `evidence`: the p-value or the interval, as text."""

    figure: Figure
    before: float
    after: float
    ratio: float
    is_real: bool
    evidence: str

    @property
    def is_better(self) -> bool:
        return (self.ratio < 1) == self.figure.is_better_low and self.ratio != 1

    @property
    def verdict(self) -> str:
        return ("better" if self.is_better else "worse") if self.is_real else "no difference shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    differences: Sequence[Difference]
    method: str
    remarks: Sequence[str]

    @property
    def headline(self) -> Difference:
        """The difference that decides: goodput if it differs from throughput, else p99, since no objective was
        missed."""
        goodput, throughput, _, p99 = self.differences
        return p99 if (goodput.before, goodput.after) == (throughput.before, throughput.after) else goodput


def compare(before: Result, after: Result) -> Comparison:
    """Compares two results. Raises ValueError if the results are too short."""
    if min(len(before.runs), len(after.runs)) >= LEAST_RUNS:
        method = (
            f"exact rank-sum test over {len(before.runs)} and {len(after.runs)} runs; real if p < {ALPHA}. Each "
            "figure is tested separately: of twenty without a difference, one may be called real by chance"
        )
        differences = [_by_runs(figure, before, after) for figure in FIGURES]
    else:
        if min(len(_windows(before)), len(_windows(after))) < _LEAST_WINDOWS:
            raise ValueError(f"too short: at least {_LEAST_WINDOWS} s of each, or {LEAST_RUNS} runs of each (--repeat)")
        method = (
            f"block bootstrap over the seconds of each result; real if the 95 % interval of the ratio excludes 1. "
            f"It ignores the variance between runs: {LEAST_RUNS} runs of each (--repeat) are better evidence"
        )
        differences = [_by_windows(figure, before, after) for figure in FIGURES]
    return Comparison(differences=differences, method=method, remarks=_remarks(before, after))


def _by_runs(figure: Figure, before: Result, after: Result) -> Difference:
    sides = [[figure.of(run.windows) for run in result.runs] for result in (before, after)]
    p = rank_test(*sides)
    first, second = (median(side) for side in sides)
    return _difference(figure, first, second, is_real=p < ALPHA, evidence=f"p = {p:.3f}")


def _by_windows(figure: Figure, before: Result, after: Result) -> Difference:
    first_windows, second_windows = _windows(before), _windows(after)
    low, high = bootstrap_ratio(first_windows, second_windows, figure.of)
    first, second = figure.of(first_windows), figure.of(second_windows)
    return _difference(figure, first, second, is_real=not low <= 1 <= high, evidence=f"95 %: {low:.3f} to {high:.3f}")


def _difference(figure: Figure, before: float, after: float, *, is_real: bool, evidence: str) -> Difference:
    ratio = 1.0 if before == after else after / before if before else math.inf
    return Difference(figure=figure, before=before, after=after, ratio=ratio, is_real=is_real, evidence=evidence)


def _windows(result: Result) -> Windows:
    # The last window is left out, because it is rarely a whole second.
    return [window for run in result.runs for window in (run.windows[:-1] if len(run.windows) > 1 else run.windows)]


def _remarks(before: Result, after: Result) -> list[str]:
    ours, theirs = before.load.as_json(), after.load.as_json()
    remarks = [
        f"the loads differ in {name}: {ours[name]} and {theirs[name]}"
        for name in ours
        if ours[name] != theirs[name] and name not in ("url", "processes")
    ]
    for name, result in (("first", before), ("second", after)):
        if any(run.summary.is_generator_limit for run in result.runs):
            remarks.append(f"in the {name} the generator was the bottleneck: do not judge the server by it")
    return remarks


def text(comparison: Comparison) -> str:
    lines = [f"{'':18}{'first':>12}{'second':>12}{'ratio':>9}  {'evidence':24}verdict"]
    for each in comparison.differences:
        values = f"{each.before:12.2f}{each.after:12.2f}{each.ratio:9.3f}"
        lines.append(f"{each.figure.name:18}{values}  {each.evidence:24}{each.verdict}")
    lines += ["", comparison.method + "."]
    lines += [f"note: {remark}" for remark in comparison.remarks]
    headline = comparison.headline
    if headline.is_real:
        lines.append(f"The second is {headline.verdict} ({headline.figure.name}), and the difference is real.")
    else:
        lines.append(f"No real difference was shown ({headline.figure.name}).")
    return "\n".join(lines)
