"""The judge of `serving/traffic`, for many releases at once. A test compares it with the real one, second by second."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil, floor, log2

import numpy as np

from benchmarks.canary.boundaries import fewest_above, most_below
from benchmarks.canary.traffic import BUCKETS, FIRST, Arm, Scenario, ticks
from serving.core.octaves import PER_OCTAVE
from serving.traffic.findings import LIMIT_PART
from serving.traffic.limits import Limits, Metric
from serving.traffic.odds import GROUP, ODDS
from serving.traffic.quantile import BEYOND

PROMOTED, ROLLED_BACK, HELD = 1, 2, 3


@dataclass
class Ends:
    """The ends of a step, by release: the verdict, after how many seconds, after how many requests to the candidate."""

    verdict: np.ndarray
    seconds: np.ndarray
    requests: np.ndarray


class Step:
    """The judge in one step of `runs` releases. most: requests that a version gets in it at most."""

    def __init__(self, limits: Limits, step: int, steps: int, runs: int, most: int, *, alone: bool, before: np.ndarray):
        self.limits, self.alone, self.before = limits, alone, before
        self.computed = np.zeros((2, runs), np.int64)
        self.failed = np.zeros((2, runs), np.int64)
        self.latency = np.zeros((2, runs, BUCKETS), np.int32)
        self.logs = np.zeros((runs, len(ODDS)))
        self.group = np.zeros((4, runs), np.int64)  # candidate, stable, the candidate's failures, all failures
        self.log_odds, self.odds = np.log(ODDS), np.array(ODDS)
        errors, latency = limits.alpha_of(Metric.ERRORS, step, steps), limits.alpha_of(Metric.LATENCY, step, steps)
        self.errors_exceed = fewest_above(limits.errors, errors, most)
        self.errors_keep = most_below(limits.errors, limits.promote_alpha, most)
        self.late_exceed = fewest_above(BEYOND, latency * (1 - LIMIT_PART), most)
        self.late_keep = most_below(BEYOND, limits.promote_alpha / 2, most)
        self.p95_highest = most_below(BEYOND, latency * LIMIT_PART, most)
        self.p95_lowest = fewest_above(BEYOND, limits.promote_alpha / 2, most)
        self.beside_needed = -np.log(limits.alpha_of(Metric.ERRORS_BESIDE_STABLE, step, steps))

    def take(self, arms: tuple[Arm, Arm], active: np.ndarray) -> None:
        """Adds the requests of one tick. active: which of the runs of `arms` are still here, in order."""
        place = np.cumsum(active) - 1
        for index, arm in enumerate(arms):
            self.computed[index] += arm.computed[active]
            self.failed[index] += arm.failed[active]
            here = active[arm.run]
            np.add.at(self.latency[index], (place[arm.run[here]], arm.latency[here] - FIRST), 1)
        own, others = arms
        self.group += np.stack([own.computed, others.computed, own.failed, own.failed + others.failed])[:, active]
        full = (self.group[0] > 0) & (self.group[1] > 0) & (self.group[0] + self.group[1] >= GROUP)
        if full.any():
            candidate, stable, failed, together = self.group[:, full]
            share = (candidate / (candidate + stable))[:, None]
            self.logs[full] += failed[:, None] * self.log_odds
            self.logs[full] -= together[:, None] * np.log(1 - share + share * self.odds)
            self.group[:, full] = 0

    def verdicts(self, second: int) -> np.ndarray:
        """Returns the verdicts after this second; 0 to go on."""
        computed, failed = self.computed[0], self.failed[0]
        own, answers = _higher(self.latency[0])
        others, answers_of_stable = _higher(self.latency[1])
        if self.alone:
            others, answers_of_stable = _higher(self.before)
        octaves = PER_OCTAVE * log2(self.limits.latency_factor)
        is_bound = others <= self.p95_highest[answers_of_stable][:, None]
        highest = np.where(is_bound.any(axis=1), is_bound.argmax(axis=1) + ceil(octaves), BUCKETS)
        is_below = others >= self.p95_lowest[answers_of_stable][:, None]
        lowest = np.where(is_below.any(axis=1), is_below.sum(axis=1) - 1 + floor(octaves), -1)
        rows = np.arange(len(computed))
        late = np.where(highest < BUCKETS, own[rows, np.minimum(highest, BUCKETS - 1)], -1)
        early = np.where(lowest >= 0, own[rows, np.clip(lowest, 0, BUCKETS - 1)], answers + 1)
        top = self.logs.max(axis=1, keepdims=True)
        beside = top[:, 0] + np.log(np.exp(self.logs - top).mean(axis=1))
        against = (failed >= self.errors_exceed[computed]) | (late >= self.late_exceed[answers])
        if not self.alone:
            against |= beside >= self.beside_needed
        kept = (failed <= self.errors_keep[computed]) & (early <= self.late_keep[answers])
        kept &= (computed >= self.limits.minimum_requests) & (second >= self.limits.soak_s)
        held = HELD if second >= self.limits.deadline_s else 0
        return np.where(against, ROLLED_BACK, np.where(kept, PROMOTED, held))

    def keep(self, staying: np.ndarray) -> None:
        """Drops the runs that have ended."""
        self.computed, self.failed = self.computed[:, staying], self.failed[:, staying]
        self.latency, self.logs, self.group = self.latency[:, staying], self.logs[staying], self.group[:, staying]
        self.before = self.before[staying] if self.alone else self.before


def _higher(latency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns by release how many answers are above each bucket, and how many there are."""
    seen = np.cumsum(latency, axis=1, dtype=np.int32)
    return seen[:, -1:] - seen, seen[:, -1]


def run_step(
    traffic: Iterator[tuple[Arm, Arm]], limits: Limits, step: int, steps: int, runs: int, most: int,
    *, alone: bool = False, before: np.ndarray | None = None, every_s: int = 1,
) -> tuple[Ends, np.ndarray]:  # fmt: skip
    """Runs one step to its end in all releases. Returns the ends, and the stable version's latencies at the end.

    every_s: the length of a tick of `traffic`; it is judged after each."""
    state = Step(limits, step, steps, runs, most, alone=alone, before=np.zeros(0) if before is None else before)
    active = np.ones(runs, bool)
    ends = Ends(np.zeros(runs, np.int64), np.zeros(runs, np.int64), np.zeros(runs, np.int64))
    latency = np.zeros((runs, BUCKETS), np.int32)
    for tick, arms in enumerate(islice(traffic, int(limits.deadline_s) // every_s), start=1):
        second = tick * every_s
        state.take(arms, active)
        verdicts = state.verdicts(second)
        if verdicts.any():
            ended = np.flatnonzero(active)[verdicts > 0]
            ends.verdict[ended] = verdicts[verdicts > 0]
            ends.seconds[ended] = second
            ends.requests[ended] = state.computed[0, verdicts > 0]
            latency[ended] = state.latency[1, verdicts > 0]
            active[ended] = False
            state.keep(verdicts == 0)
            if not active.any():
                break
    return ends, latency


def run_releases(
    scenario: Scenario, shares: tuple[float, ...], limits: Limits, runs: int, random: np.random.Generator
) -> list[Ends]:
    """Runs releases through all steps; the next step has those that were promoted. Returns the ends of each step."""
    found: list[Ends] = []
    before = np.zeros((runs, BUCKETS), np.int32)
    every_s = 1 if scenario.per_minute > 300 else 5
    most = int(1.2 * scenario.per_minute * limits.deadline_s / 60) + 100
    for step, share in enumerate(shares):
        traffic = ticks(scenario, share, runs, random, every_s)
        ends, latency = run_step(
            traffic, limits, step, len(shares), runs, most, alone=share == 1, before=before, every_s=every_s
        )
        found.append(ends)
        promoted = ends.verdict == PROMOTED
        before, runs = latency[promoted], int(promoted.sum())
        if not runs:
            break
    return found
