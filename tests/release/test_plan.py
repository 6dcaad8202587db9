"""Tests plans of releases: what is taken, what is refused with its field, and that a plan is kept as it was."""

import json

import pytest

from serving.release.plan import STEPS, BadPlan, Plan, plan_of, steps_of
from serving.traffic.routes import SHARES, percent


def test_a_plan_is_read_back_as_it_was_written() -> None:
    plan = Plan(shares=(1, 10_000), soak_s=3.5, agreement=0.9, business=0.02, smoke=False)
    assert plan_of(json.loads(json.dumps(plan.told()))) == plan


def test_what_is_left_out_has_its_default() -> None:
    assert plan_of({}) == Plan()
    assert Plan().shares == STEPS


@pytest.mark.parametrize(
    ("text", "shares"),
    [("5,25,50,100", STEPS), ("100", (SHARES,)), ("0.5, 10%,100", (50, 1000, SHARES)), ("0.01,100", (1, SHARES))],
)
def test_steps_are_percentages(text: str, shares: tuple[int, ...]) -> None:
    assert steps_of(text) == shares


@pytest.mark.parametrize(
    "text", ["", "five", "0,100", "5", "100,5", "5,5,100", "0.001,100", "nan,100", "101", "-1,100"]
)
def test_steps_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        steps_of(text)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ({"shares": "5"}, "shares"),
        ({"shares": [True, 10_000]}, "shares"),
        ({"shares": [5] * 50}, "shares"),
        ({"requests": 0}, "requests"),
        ({"requests": 1.5}, "requests"),
        ({"soak_s": "1m"}, "soak_s"),
        ({"soak_s": float("nan")}, "soak_s"),
        ({"errors": 1}, "errors"),
        ({"errors": True}, "errors"),
        ({"smoke": 1}, "smoke"),
        ({"business": 0}, "business"),
        ({"shadow": None}, "shadow"),
        ({"soak_s": 100, "deadline_s": 100}, "deadline_s"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_field(told: dict[str, object], path: str) -> None:
    with pytest.raises(BadPlan) as refused:
        plan_of(told)
    assert refused.value.path == path


def test_shares_are_told_in_percent() -> None:
    assert [percent(share) for share in (1, 50, 500, SHARES)] == ["0.01 %", "0.5 %", "5 %", "100 %"]
