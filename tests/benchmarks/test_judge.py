"""Tests the judge in simulated releases, a short form of `python -m benchmarks.judge`."""

from itertools import islice

import numpy as np
import pytest

from benchmarks.canary.judged import HELD, PROMOTED, ROLLED_BACK, run_releases, run_step
from benchmarks.canary.rules import failed_checks, first
from benchmarks.canary.traffic import Arm, Scenario, ticks
from serving.traffic.evidence import Counted, Reading
from serving.traffic.judge import Verdict, judge
from serving.traffic.limits import Limits
from serving.traffic.trial import Trial

SHARES = (0.05, 0.25, 0.5, 1.0)
RUNS = 200
LIMITS = Limits(deadline_s=600)
VERDICTS = {Verdict.PROMOTE: PROMOTED, Verdict.ROLL_BACK: ROLLED_BACK, Verdict.HOLD: HELD}


def counted(arm: Arm, run: int) -> Counted:
    """Returns what the version did in one second of one release."""
    failed = int(arm.failed[run])
    buckets, numbers = np.unique(arm.latency[arm.run == run], return_counts=True)
    latency = dict(zip(buckets.tolist(), numbers.tolist(), strict=True))
    return Counted(int(arm.computed[run]) - failed, failed, latency=latency)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(errors=0.01, stable_errors=0.01),
        Scenario(errors=0.1, stable_errors=0.02),
        Scenario(errors=0.0, stable_errors=0.0, slower=3.0),
    ],
    ids=["healthy", "failing", "slow"],
)
def test_the_arrays_of_the_simulation_judge_as_the_judge_does(scenario: Scenario) -> None:
    runs, limits = 3, Limits(deadline_s=200)
    drawn = list(islice(ticks(scenario, 0.1, runs, np.random.default_rng(3)), 200))
    ends, _ = run_step(iter(drawn), limits, 0, 4, runs, most=5000)
    for run in range(runs):
        trial, sums = Trial.begin(0.0), [Counted(), Counted()]
        for second, arms in enumerate(drawn, start=1):
            sums = [before.plus(counted(arm, run)) for before, arm in zip(sums, arms, strict=True)]
            own, others = ([Reading(str(index), 0.0, each)] for index, each in enumerate(sums))
            trial = trial.observed(own, others, float(second))
            verdict = judge(trial, limits, step=0, steps=4, now_s=float(second)).verdict
            if verdict is not Verdict.CONTINUE:
                break
        assert (VERDICTS[verdict], second) == (ends.verdict[run], ends.seconds[run])
        assert trial.candidate.counted.computed == ends.requests[run]


@pytest.mark.parametrize(("errors", "per_minute"), [(0.01, 1000), (0.03, 60)])
def test_a_healthy_candidate_is_hardly_ever_rolled_back(errors: float, per_minute: float) -> None:
    scenario = Scenario(errors=errors, stable_errors=errors, per_minute=per_minute)
    steps = run_releases(scenario, SHARES, LIMITS, RUNS, np.random.default_rng(1))
    assert sum((step.verdict == ROLLED_BACK).sum() for step in steps) <= RUNS / 100


def test_a_healthy_candidate_leaves_the_first_step_within_minutes() -> None:
    healthy = Scenario(errors=0.01, stable_errors=0.01)
    (step,) = run_releases(healthy, SHARES[:1], LIMITS, RUNS, np.random.default_rng(1))
    assert (step.verdict == PROMOTED).mean() > 0.98
    assert np.median(step.seconds) < 240
    assert np.quantile(step.seconds, 0.9) <= 360


@pytest.mark.parametrize(
    "sick",
    [
        Scenario(errors=0.2, stable_errors=0.01),
        Scenario(errors=0.2, stable_errors=0.01, per_minute=200),
        Scenario(errors=0.01, stable_errors=0.01, slower=3.0, spread=0.25),
    ],
    ids=["a fifth fails", "a fifth fails, little traffic", "three times as slow"],
)
def test_a_sick_candidate_is_rolled_back_after_few_requests(sick: Scenario) -> None:
    (step, *others) = run_releases(sick, SHARES, LIMITS, RUNS, np.random.default_rng(1))
    assert others == []
    assert (step.verdict == ROLLED_BACK).mean() > 0.98
    assert np.median(step.requests) <= 40


def test_a_threshold_on_a_minute_rolls_back_what_is_healthy() -> None:
    traffic = ticks(Scenario(errors=0.03, stable_errors=0.03), 0.05, RUNS, np.random.default_rng(1), every_s=60)
    failed, requests = failed_checks(traffic, LIMITS, RUNS, minutes=10)
    rolled_back, after = first(failed, requests, 1)
    assert rolled_back.mean() > 0.5
    assert after[rolled_back].min() > 10
