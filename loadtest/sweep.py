"""Searches the highest rate at which the objective is met: a share of the planned shots is answered in time. Pure
functions choose the next rate; `sweep` runs it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loadtest.load import Load
from loadtest.objective import quantile_ms
from loadtest.result import BadResult, Result, Run, read_result, why_unread
from loadtest.significance import at_least
from loadtest.tally import together

FORMAT = "loadtest sweep 1"
_GROWTH = 2.0
_DEEP = 1 / 1024  # of the first rate: the lowest rate to try


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run at one rate. Latencies are over all planned shots; infinite if too few were answered."""

    rate: float
    offered_per_s: float
    throughput_per_s: float
    goodput_per_s: float
    in_time_share: float
    p50_ms: float
    p99_ms: float
    is_generator_limit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The runs of a sweep. `share`: the share of planned shots that must be answered in time."""

    load: Load
    share: float
    points: Sequence[Point]

    def holds(self, rate: float) -> tuple[int, int]:
        """Returns (number of runs that met the objective, number of runs) at that rate."""
        runs = [point for point in self.points if point.rate == rate]
        return sum(point.in_time_share >= self.share for point in runs), len(runs)

    @property
    def rates(self) -> list[float]:
        return sorted({point.rate for point in self.points})

    @property
    def best(self) -> float | None:
        """The highest rate below the lowest rate that failed in most of its runs; None if there is none.

        A higher rate that met the objective is noise."""
        failing = self.lowest_failing
        return max((rate for rate in self.rates if failing is None or rate < failing), default=None)

    @property
    def lowest_failing(self) -> float | None:
        return min((rate for rate in self.rates if not _held(*self.holds(rate))), default=None)


def _held(held: int, runs: int) -> bool:
    return 2 * held > runs


def next_rate(sweep: Sweep, *, precision: float, repeat: int) -> float | None:
    """Returns the next rate to run; None at the end of the search. Doubles the rate until it fails, then bisects (in
    ratio) until the gap is within `precision`. Each rate is run until the majority of `repeat` runs is decided. At the
    end, the rates on both sides of the edge get all `repeat` runs."""
    open_rates = [rate for rate in sweep.rates if not _is_clear(*sweep.holds(rate), repeat)]
    if open_rates:
        return open_rates[0]
    best, failing = sweep.best, sweep.lowest_failing
    if failing is None:
        return sweep.load.rate if best is None else best * _GROWTH
    if best is None:
        return failing / _GROWTH if failing > sweep.load.rate * _DEEP else None
    if failing / best > 1 + precision:
        return _rounded((failing * best) ** 0.5)
    return next((rate for rate in (best, failing) if sweep.holds(rate)[1] < repeat), None)


def _is_clear(held: int, runs: int, repeat: int) -> bool:
    """Returns whether the remaining runs cannot change the majority."""
    left = repeat - runs
    return left <= 0 or 2 * held > runs + left or 2 * (held + left) <= runs


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def point_of(rate: float, run: Run) -> Point:
    whole = together(run.windows)
    seconds = max(1, len(run.windows))
    return Point(
        rate=rate,
        offered_per_s=whole.planned / seconds,
        throughput_per_s=run.summary.throughput_per_s,
        goodput_per_s=run.summary.goodput_per_s,
        in_time_share=whole.in_time / max(1, whole.planned),
        p50_ms=quantile_ms(whole, 0.5),
        p99_ms=quantile_ms(whole, 0.99),
        is_generator_limit=run.summary.is_generator_limit,
    )


def sweep(
    load: Load,
    take: Callable[[Load], Run],
    *,
    share: float = 0.99,
    repeat: int = 3,
    precision: float = 0.1,
    most: float = 1e6,
    on_progress: Callable[[Point], None] = lambda _: None,
) -> Sweep:
    """Runs a sweep from the load's rate. Stops when the next rate is above `most`. Each run has its own seed, so that
    the runs of one rate differ. `on_progress`: called with each point."""
    done = Sweep(load=load, share=share, points=())
    while (rate := next_rate(done, precision=precision, repeat=repeat)) is not None and rate <= most:
        seeded = replace(load, rate=rate, seed=load.seed + len(done.points))
        point = point_of(rate, take(seeded))
        done = replace(done, points=(*done.points, point))
        on_progress(point)
    return done


def text(done: Sweep) -> str:
    best, failing = done.best, done.lowest_failing
    objective = f"{done.share:.0%} of the planned shots answered within {done.load.within_ms:g} ms"
    lines = [f"{'rate':>8}{'held':>8}{'goodput/s':>12}{'p50 ms':>10}{'p99 ms':>10}"]
    for rate in done.rates:
        runs = sorted((point for point in done.points if point.rate == rate), key=lambda point: point.goodput_per_s)
        middle = runs[len(runs) // 2]
        lines.append(
            f"{rate:8g}{_of(done.holds(rate)):>8}{middle.goodput_per_s:12.1f}{middle.p50_ms:10.2f}{middle.p99_ms:10.2f}"
        )
    lines.append("")
    if best is None:
        lines.append(f"No rate was found that meets the objective: {objective}.")
    else:
        lines.append(
            f"{best:g} requests per second: {objective}. Met in {_of(done.holds(best))} runs, so with 95 % confidence "
            f"in more than {at_least(*done.holds(best)):.0%} of all such runs; more runs give a tighter bound."
        )
    if failing is not None:
        lines.append(f"At {failing:g} it was met in {_of(done.holds(failing))}.")
    if any(point.is_generator_limit and point.rate == failing for point in done.points):
        lines.append(f"warning: at {failing:g} the generator was the bottleneck, so the server may do more.")
    return "\n".join(lines)


def _of(counted: tuple[int, int]) -> str:
    return f"{counted[0]} of {counted[1]}"


def write_sweep(path: Path, done: Sweep) -> None:
    points = [{name: getattr(point, name) for name in Point.__slots__} for point in done.points]
    document = {"format": FORMAT, "load": done.load.as_json(), "share": done.share, "points": points}
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def read_any(path: Path) -> Result | Sweep:
    """Reads a file that is a result or a sweep. Raises BadResult."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        is_sweep = document["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResult(f"{path} is neither a result nor a sweep: {why_unread(error)}") from None
    return sweep_from_json(document, path) if is_sweep else read_result(path)


def sweep_from_json(document: Mapping[str, Any], path: Path) -> Sweep:
    """Builds a sweep from its JSON document. Raises BadResult."""
    try:
        points = [Point(**point) for point in document["points"]]
        return Sweep(load=Load.from_json(document["load"]), share=document["share"], points=points)
    except (KeyError, TypeError, ValueError) as error:
        raise BadResult(f"{path} is not a sweep: {error!r}") from None
