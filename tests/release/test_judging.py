"""Tests releases with the real judge, on the counts of made-up replicas: good, failing and slow versions."""

import asyncio
import json

import pytest

from serving.release.plan import Plan
from serving.release.state import Phase, Release
from serving.release.telling import share, told
from serving.traffic.routes import SHARES
from tests.release.counts import Judged, Traffic
from tests.release.stories import S

PLAN = Plan(soak_s=5.0, deadline_s=600.0, smoke=False, shadow=0)


def ended(plan: Plan = PLAN, *, restart_every: int = 0, **traffic: float) -> Release:
    async def story() -> Release:
        judged = Judged(plan)
        judged.with_traffic(Traffic(**traffic))  # type: ignore[arg-type]
        return await judged.ended(restart_every=restart_every)

    return asyncio.run(story())


@pytest.mark.parametrize("restart_every", [0, 7])
def test_a_version_as_good_as_the_stable_one_is_promoted(restart_every: int) -> None:
    release = ended(error=0.01, restart_every=restart_every)
    assert release.phase is Phase.PROMOTED, release.why
    steps = [event for event in release.events if event.kind == "step"]
    assert [event.share for event in steps] == [500, 2500, 5000, 10_000]


@pytest.mark.parametrize("restart_every", [0, 7])
@pytest.mark.parametrize(("traffic", "word"), [({"error": 0.2}, "failed"), ({"error": 0.01, "ms": 30.0}, "p95")])
def test_a_bad_version_is_rolled_back_with_the_numbers(
    traffic: dict[str, float], word: str, restart_every: int
) -> None:
    release = ended(restart_every=restart_every, **traffic)
    assert release.phase is Phase.ROLLED_BACK, release.why
    assert release.step == 0
    assert word in release.why


def test_a_version_that_nobody_asks_is_held() -> None:
    release = ended(Plan(soak_s=5, deadline_s=60, smoke=False, shadow=0), per_look=0)
    assert release.phase is Phase.HELD


def test_counts_of_a_step_are_the_same_whether_the_front_was_restarted_or_not() -> None:
    async def counts(restart_every: int) -> object:
        judged = Judged(Plan(soak_s=50, deadline_s=600, smoke=False, shadow=0))
        judged.with_traffic(Traffic(error=0.01))
        await judged.start()
        for number in range(40):
            if restart_every and number % restart_every == 0:
                judged.driver = judged.made()
            await judged.driver.turn()
            judged.traffic.share = judged.driver.log.route().share / SHARES
            judged.clock.advance(S)
        assert judged.driver.verdict is not None
        return judged.driver.verdict.told["trial"]["candidate"]["counted"]

    assert asyncio.run(counts(0)) == asyncio.run(counts(5))


def test_what_is_told_of_a_release_is_json_with_both_versions_and_their_confidence() -> None:
    release = ended(error=0.2)
    answer = json.loads(json.dumps(told(release)))
    errors = answer["arms"]["candidate"]["errors"]
    assert errors["low"] < errors["value"] < errors["high"]
    assert answer["arms"]["stable"]["computed"] > answer["arms"]["candidate"]["computed"]
    assert {finding["claim"] for finding in answer["judgement"]["findings"]} == {"exceeds", "keeps"}
    assert (answer["exit"], answer["phase"]) == (3, "rolled back")


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"), [(0, 100, 0.0, 0.037), (5, 100, 0.0215, 0.1118), (1, 1, 0.2065, 1)]
)
def test_a_share_has_wilsons_interval(part: int, whole: int, low: float, high: float) -> None:
    found = share(part, whole)
    assert found["low"] == pytest.approx(low, abs=1e-3)
    assert found["high"] == pytest.approx(high, abs=1e-3)


def test_a_share_of_nothing_is_unknown() -> None:
    assert share(0, 0) == {"value": None, "low": None, "high": None}
