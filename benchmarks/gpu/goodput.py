"""Measures goodput: Headway's, and that of the best of a grid of fixed configurations, chosen in hindsight."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from benchmarks.gpu.fixed import Configuration, configured, grid
from benchmarks.gpu.load import Goodput, Payloads, crowd
from serving.runtime.engine import Engine

BUDGET_IN_SINGLES = 5
LOADS = (0.6, 0.9, 1.2)  # of the highest rate that any batch size could sustain within the budget
FINALISTS = 2
LOOP_SHARE = 0.7  # of the saturated rate: small models saturate the event loop, which is not measured here
COUNTS = 0.01  # of the offered rate: with less goodput there is no ratio
FINAL_SEEDS = (11, 12, 13)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load: requests per second offered, and answered in time by Headway and by the best fixed configuration."""

    load: float
    offered: float
    ours: float
    fixed: float
    configuration: str
    our_p99_ms: float

    @property
    def ratio(self) -> float | None:
        """Headway's goodput over that of the fixed configuration; None if the latter is almost zero."""
        return self.ours / self.fixed if self.fixed > COUNTS * self.offered else None

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f", ratio {self.ratio:.3f}"
        return (
            f"{self.offered:.0f}/s offered: {self.ours / self.offered:.1%} in time, p99 {self.our_p99_ms:.2f} ms; "
            f"best fixed {self.fixed / self.offered:.1%} ({self.configuration}){ratio}"
        )


async def compare(
    engine: Engine, payloads: Payloads, *, budget_ns: int, most: float, seconds: float, say: Callable[[str], None]
) -> list[Point]:
    """Compares goodput at each load. The grid is screened with one seed; finalists and Headway are compared on other
    seeds, so that the winner is not chosen by chance."""
    sustainable = min(LOOP_SHARE * most, sustainable_rate(engine, budget_ns))
    configurations = grid(engine.batcher, budget_ns)
    points = []
    for load in LOADS:
        rate = load * sustainable

        async def run(seed: int, share: float = 1.0, rate: float = rate) -> Goodput:
            return await crowd(engine, payloads, rate=rate, budget_ns=budget_ns, seconds=seconds * share, seed=seed)

        screened = []
        for configuration in configurations:
            with configured(engine, configuration):
                screened.append(((await run(1, 0.5)).in_time, configuration))
        screened.sort(key=lambda found: found[0], reverse=True)
        finalists = [configuration for _, configuration in screened[:FINALISTS]]
        ours: list[Goodput] = []
        theirs: dict[Configuration, list[Goodput]] = {finalist: [] for finalist in finalists}
        for seed in FINAL_SEEDS:
            ours.append(await run(seed))
            for finalist, runs in theirs.items():
                with configured(engine, finalist):
                    runs.append(await run(seed))
        best = max(finalists, key=lambda finalist: mean(theirs[finalist], "in_time"))
        points.append(
            Point(
                load=load,
                offered=mean(ours, "offered"),
                ours=mean(ours, "in_time"),
                fixed=mean(theirs[best], "in_time"),
                configuration=str(best),
                our_p99_ms=mean(ours, "p99_ms"),
            )
        )
        say(str(points[-1]))
    return points


def sustainable_rate(engine: Engine, budget_ns: int) -> float:
    """Returns the rows per second of the largest batches that take half the budget: a request waits for one batch and
    is computed in the next."""
    latency, sizes = engine.batcher.latency, engine.batcher.sizes
    length = sizes.lengths[len(sizes.lengths) // 2]
    feasible = [rows for rows in range(1, sizes.largest_rows + 1) if 2 * latency.predict_ns(rows, length) <= budget_ns]
    return max(latency.throughput_rows_per_s(rows, length) for rows in feasible or [1])


def mean(runs: Sequence[Goodput], name: str) -> float:
    return fmean(getattr(run, name) for run in runs)


def as_plain(points: Sequence[Point]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(point) | {"ratio": point.ratio} for point in points]
