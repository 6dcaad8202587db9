"""The highest rate at which the objective holds: so many of the planned shots answered in time. Where to look next is
decided in plain functions; `sweep` only runs."""

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
_DEEP = 1 / 1024  # of the first rate; a server that cannot do even that is asked no further


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run at one rate. Latencies are of all planned shots; infinite where too few were answered."""

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
    load: Load
    share: float
    points: Sequence[Point]

    def holds(self, rate: float) -> tuple[int, int]:
        """(runs in which the objective held, runs) at that rate."""
        found = [point for point in self.points if point.rate == rate]
        return sum(point.in_time_share >= self.share for point in found), len(found)

    @property
    def rates(self) -> list[float]:
        return sorted({point.rate for point in self.points})

    @property
    def best(self) -> float | None:
        """The highest rate below the lowest that failed in most of its runs; None where there is none.

        A higher one that held all the same is noise."""
        failing = self.lowest_failing
        return max((rate for rate in self.rates if failing is None or rate < failing), default=None)

    @property
    def lowest_failing(self) -> float | None:
        return min((rate for rate in self.rates if not _held(*self.holds(rate))), default=None)


def _held(held: int, runs: int) -> bool:
    return 2 * held > runs


def next_rate(sweep: Sweep, *, precision: float, repeat: int) -> float | None:
    """Where to look next; None when it is known. Doubles until it fails, then halves the gap (in ratio) until that is
    within `precision`; in between a rate is asked until most of `repeat` runs agree. In the end the rates on both sides
    of the edge get all their runs."""
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
    """Whether the runs that are left cannot change what most say."""
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
    told: Callable[[Point], None] = lambda _: None,
) -> Sweep:
    """Begins at the load's rate. Stops, and keeps what it has, where `most` is passed. Each run has a seed of its own,
    or the runs of one rate would repeat each other."""
    done = Sweep(load=load, share=share, points=())
    while (rate := next_rate(done, precision=precision, repeat=repeat)) is not None and rate <= most:
        seeded = replace(load, rate=rate, seed=load.seed + len(done.points))
        point = point_of(rate, take(seeded))
        done = replace(done, points=(*done.points, point))
        told(point)
    return done


def text(done: Sweep) -> str:
    best, failing = done.best, done.lowest_failing
    objective = f"{done.share:.0%} of the planned shots answered within {done.load.within_ms:g} ms"
    lines = [f"{'rate':>8}{'held':>8}{'goodput/s':>12}{'p50 ms':>10}{'p99 ms':>10}"]
    for rate in done.rates:
        found = sorted((point for point in done.points if point.rate == rate), key=lambda point: point.goodput_per_s)
        middle = found[len(found) // 2]
        lines.append(
            f"{rate:8g}{_of(done.holds(rate)):>8}{middle.goodput_per_s:12.1f}{middle.p50_ms:10.2f}{middle.p99_ms:10.2f}"
        )
    lines.append("")
    if best is None:
        lines.append(f"No rate was found at which it holds: {objective}.")
    else:
        lines.append(
            f"{best:g} requests per second: {objective}. Held in {_of(done.holds(best))} runs, so with 95 % confidence "
            f"in more than {at_least(*done.holds(best)):.0%} of all such runs; repeat more often for more."
        )
    if failing is not None:
        lines.append(f"At {failing:g} it held in {_of(done.holds(failing))}.")
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
    """Whichever it is. Raises BadResult."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        is_sweep = document["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadResult(f"{path} is neither a result nor a sweep: {why_unread(error)}") from None
    return sweep_from_json(document, path) if is_sweep else read_result(path)


def sweep_from_json(document: Mapping[str, Any], path: Path) -> Sweep:
    """Raises BadResult."""
    try:
        points = [Point(**point) for point in document["points"]]
        return Sweep(load=Load.from_json(document["load"]), share=document["share"], points=points)
    except (KeyError, TypeError, ValueError) as error:
        raise BadResult(f"{path} is no sweep: {error!r}") from None
