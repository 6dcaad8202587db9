"""Tests the verdicts of the judge in small stories: what rolls back, what promotes, and what does neither."""

import json

import pytest

from serving.core.octaves import PER_OCTAVE, bound_ns
from serving.traffic.evidence import Counted, Reading
from serving.traffic.judge import Judgement, Verdict, judge
from serving.traffic.limits import Limits, Metric
from serving.traffic.trial import Trial

FAST, LATER = 400, 400 + 2 * PER_OCTAVE  # buckets, four times apart
LIMITS = Limits(minimum_requests=100, soak_s=60, deadline_s=600)
WITH_VALUES = Limits(value_margin=0.05)


def arm(answered: int, failed: int = 0, bucket: int = FAST, **more: int) -> list[Reading]:
    latency = {bucket: answered} if answered else {}
    return [Reading(f"r{bucket}", 0.0, Counted(answered, failed, latency=latency, **more))]


def after(candidate: list[Reading], stable: list[Reading], now_s: float = 100.0, **more: object) -> Trial:
    return Trial.begin(0.0).observed(candidate, stable, now_s, **more)  # type: ignore[arg-type]


def said(
    trial: Trial, limits: Limits = LIMITS, now_s: float = 100.0, *, step: int = 0, alone: bool = False
) -> Judgement:
    return judge(trial, limits, step=step, steps=4, now_s=now_s, alone=alone)


def test_a_healthy_candidate_is_promoted_with_its_numbers() -> None:
    judgement = said(after(arm(200, 1), arm(3000, 30)))
    assert judgement.verdict is Verdict.PROMOTE
    assert judgement.reasons[0].startswith("1 of 201 (0.5 %) requests computed by the candidate failed; evidence that")
    assert "0 of 200 (0 %) answers of the candidate took longer than" in judgement.reasons[1]


def test_failures_roll_back_with_the_numbers_of_both() -> None:
    judgement = said(after(arm(16, 14), arm(570, 6)))
    assert judgement.verdict is Verdict.ROLL_BACK
    (over, beside) = judgement.reasons
    assert over.startswith("14 of 30 (47 %) requests computed by the candidate failed; evidence that more than 5 % do:")
    assert "6 of 576 (1 %) by the stable version; evidence that the candidate's fail more often" in beside


def test_failures_roll_back_although_the_stable_version_fails_too() -> None:
    judgement = said(after(arm(20, 20), arm(400, 400)))
    assert [finding.metric for finding in judgement.findings if finding.is_shown and finding.claim == "exceeds"] == [
        Metric.ERRORS
    ]


def test_late_answers_roll_back_with_both_times() -> None:
    judgement = said(after(arm(30, bucket=LATER), arm(900)))
    assert judgement.verdict is Verdict.ROLL_BACK
    (late,) = judgement.reasons
    assert late.startswith("30 of 30 (100 %) answers of the candidate took longer than")
    assert f"{2 * bound_ns(FAST) / 1e6:.3g} ms, 2 times the stable version's p95" in late


def test_latency_is_not_judged_before_the_stable_version_has_answers() -> None:
    judgement = said(after(arm(500, bucket=LATER), arm(1)))
    assert judgement.verdict is Verdict.CONTINUE
    assert "The stable version has answered too few requests to know its p95" in judgement.reasons[-1]


@pytest.mark.parametrize("counts", [{}, {"cached": 500}, {"cancelled": 500}, {"invalid": 500}, {"refused": 3}])
def test_silence_neither_promotes_nor_rolls_back(counts: dict[str, int]) -> None:
    trial = after(arm(0, **counts), arm(5000))
    assert said(trial).verdict is Verdict.CONTINUE
    held = said(trial, now_s=600)
    assert held.verdict is Verdict.HOLD
    assert held.reasons[:2] == (
        "The step was not decided within 600 s.",
        "The candidate has not computed any request.",
    )


def test_no_evidence_at_all_is_held_at_the_deadline_only() -> None:
    trial = Trial.begin(0.0)
    assert said(trial, now_s=599.9).verdict is Verdict.CONTINUE
    assert said(trial, now_s=600).verdict is Verdict.HOLD


def test_a_step_has_its_requests_and_its_time_before_it_is_promoted() -> None:
    early = said(after(arm(200), arm(3000), now_s=59), now_s=59)
    assert early.reasons == ("The step takes at least 60 s, 59 s have passed.",)
    more = Limits(minimum_requests=300)
    few = said(after(arm(200), arm(3000)), more)
    assert few.reasons == ("The candidate has computed 200 of at least 300 requests.",)
    assert (early.verdict, few.verdict) == (Verdict.CONTINUE, Verdict.CONTINUE)


def test_a_candidate_that_refuses_many_requests_is_not_promoted() -> None:
    judgement = said(after(arm(200, refused=100), arm(3000)))
    assert judgement.verdict is Verdict.CONTINUE
    assert "The candidate refused 100 of 300 (33 %) requests" in judgement.reasons[0]


def test_values_below_those_of_the_stable_version_roll_back() -> None:
    trial = after(arm(300), arm(3000), values=([0.5] * 200, [0.9] * 2000))
    judgement = said(trial, WITH_VALUES)
    assert judgement.verdict is Verdict.ROLL_BACK
    assert judgement.reasons[0].startswith(
        "The values sent back have the mean 0.500, those of the stable version 0.900; the difference is at most -0."
    )


def test_a_metric_that_is_asked_for_has_to_come_in_before_a_promotion() -> None:
    silent = said(after(arm(300), arm(3000)), WITH_VALUES)
    assert silent.verdict is Verdict.CONTINUE
    assert "The values sent back have the mean unknown" in silent.reasons[0]
    good = after(arm(300), arm(3000), values=([0.9] * 1000, [0.9] * 3000))
    assert said(good, WITH_VALUES).verdict is Verdict.PROMOTE
    assert said(after(arm(300), arm(3000)), WITH_VALUES, alone=True).verdict is Verdict.PROMOTE


def test_alone_the_candidate_is_compared_with_the_latency_of_the_step_before() -> None:
    before = after(arm(200), arm(3000))
    for bucket, verdict in ((FAST, Verdict.PROMOTE), (LATER, Verdict.ROLL_BACK)):
        trial = Trial.begin(100.0, before).observed(
            [Reading("new", 5.0, arm(300, bucket=bucket)[0].counted)], [], 200.0
        )
        assert said(trial, now_s=200.0, step=3, alone=True).verdict is verdict


def test_a_new_step_begins_without_the_evidence_of_the_one_before() -> None:
    trial = Trial.begin(100.0, after(arm(200, 30), arm(3000)))
    assert trial.candidate.counted == Counted()
    assert trial.observed(arm(210, 31), arm(3000), 101.0).candidate.counted == Counted(10, 1, latency={FAST: 10})


@pytest.mark.parametrize("limits", [LIMITS, WITH_VALUES])
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_all_steps_and_metrics_together_use_up_alpha(limits: Limits, steps: int) -> None:
    parts = [limits.alpha_of(metric, step, steps) for step in range(steps) for metric in limits.metrics()]
    assert sum(parts) == pytest.approx(limits.alpha)


def test_trials_and_judgements_can_be_written_down() -> None:
    trial = after(arm(200, 30), arm(3000, 2), values=([0.25, 1.0], [0.0]))
    assert Trial.of_json(json.loads(json.dumps(trial.as_json()))) == trial
    document = json.loads(json.dumps(said(trial, WITH_VALUES).as_json()))
    assert document["verdict"] == "roll back"
    first = document["findings"][0]
    assert {name: first[name] for name in ("metric", "claim", "limit", "shown")} == {
        "metric": "errors",
        "claim": "exceeds",
        "limit": 0.05,
        "shown": True,
    }
    assert first["candidate"] == pytest.approx(30 / 230)
