"""Which of two results is better, figure by figure, and whether each difference is real. Pure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtest.objective import quantile_ms
from loadtest.result import Result
from loadtest.significance import ALPHA, LEAST_RUNS, bootstrap_ratio, rank_test
from loadtest.tally import Tally, together

_LEAST_WINDOWS = 8  # seconds; fewer say nothing about each other

Windows = Sequence[Tally]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    of: Callable[[Windows], float]
    is_better_low: bool


# Rates are per second of planned time: that is what the windows are.
FIGURES = (
    Figure("goodput per s", lambda windows: together(windows).in_time / len(windows), False),
    Figure("throughput per s", lambda windows: together(windows).answered / len(windows), False),
    Figure("p50 ms", lambda windows: quantile_ms(together(windows), 0.5), True),
    Figure("p99 ms", lambda windows: quantile_ms(together(windows), 0.99), True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`ratio`: after over before. `evidence`: the p-value or the interval, in words."""

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
        """What decides: goodput where it can differ from throughput, else p99, as there is no objective."""
        goodput, throughput, _, p99 = self.differences
        return p99 if (goodput.before, goodput.after) == (throughput.before, throughput.after) else goodput


def compare(before: Result, after: Result) -> Comparison:
    """Raises ValueError where there is too little to compare."""
    if min(len(before.runs), len(after.runs)) >= LEAST_RUNS:
        method = (
            f"exact rank-sum test over {len(before.runs)} and {len(after.runs)} runs; real where p < {ALPHA}. Each "
            "figure is tested by itself: of twenty that do not differ, one may look as if it did"
        )
        differences = [_by_runs(figure, before, after) for figure in FIGURES]
    else:
        if min(len(_windows(before)), len(_windows(after))) < _LEAST_WINDOWS:
            raise ValueError(f"too short: at least {_LEAST_WINDOWS} s of each, or {LEAST_RUNS} runs of each (--repeat)")
        method = (
            f"block bootstrap over the seconds of each result; real where the 95 % interval of the ratio leaves out 1. "
            f"It cannot see what differs from run to run: {LEAST_RUNS} runs of each (--repeat) are better evidence"
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
    # The last second of a run is seldom a whole one.
    return [window for run in result.runs for window in (run.windows[:-1] if len(run.windows) > 1 else run.windows)]


def _remarks(before: Result, after: Result) -> list[str]:
    ours, theirs = before.load.as_json(), after.load.as_json()
    said = [
        f"the loads differ in {name}: {ours[name]} and {theirs[name]}"
        for name in ours
        if ours[name] != theirs[name] and name not in ("url", "processes")
    ]
    for name, result in (("first", before), ("second", after)):
        if any(run.summary.is_generator_limit for run in result.runs):
            said.append(f"in the {name} the generator was the bottleneck: judge nothing by it")
    return said


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
