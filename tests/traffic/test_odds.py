"""Tests the comparison of failures at the same time: it is a fair game whatever the failure rate does."""

import json
import random
from math import comb, exp

import pytest

from serving.traffic.odds import GROUP, ODDS, Odds


def test_without_a_difference_the_mean_of_every_ratio_is_at_most_one() -> None:
    """Exact, over all ways in which the failures of one group can fall on its requests."""
    for candidate, stable, failed in ((1, 19, 1), (1, 30, 3), (10, 10, 5), (19, 1, 4), (3, 40, 12)):
        ways = comb(candidate + stable, failed)
        means = [0.0] * len(ODDS)
        for own in range(max(0, failed - stable), min(candidate, failed) + 1):
            chance = comb(candidate, own) * comb(stable, failed - own) / ways
            after = Odds().after((own, candidate), (failed - own, stable))
            means = [mean + chance * exp(each) for mean, each in zip(means, after.logs, strict=True)]
        assert max(means) <= 1 + 1e-12
        assert failed > 1 or min(means) == pytest.approx(1)


def drawn(errors: float, stable: float, seconds: int, seed: int, storm: float = 1.0) -> Odds:
    """Draws requests of 17 a second, of which the candidate gets one; in every fifth minute all fail `storm` times as
    often."""
    chance, odds = random.Random(seed), Odds()
    for second in range(seconds):
        times = storm if second // 60 % 5 == 4 else 1.0
        own, others = (
            (sum(chance.random() < share * times for _ in range(requests)), requests)
            for share, requests in ((errors, 1), (stable, 16))
        )
        odds = odds.after(own, others)
    return odds


def test_a_candidate_that_fails_more_often_is_found() -> None:
    assert all(drawn(0.2, 0.01, 120, seed).log_e() > 7 for seed in range(10))


def test_storms_that_hit_both_are_no_evidence() -> None:
    assert all(drawn(0.01, 0.01, 900, seed, storm=30).log_e() < 3 for seed in range(20))


def test_fewer_failures_than_the_stable_version_are_no_evidence() -> None:
    assert drawn(0.0, 0.05, 600, 1).log_e() < 0


def test_a_group_ends_by_its_size_and_not_by_its_failures() -> None:
    few = Odds().after((1, 1), (0, GROUP - 2))
    assert few == Odds(candidate=1, stable=GROUP - 2, failed=(1, 1))
    assert few.log_e() == 0
    assert few.after((0, 0), (0, 1)).log_e() > 0
    assert Odds().after((0, 0), (5, 10 * GROUP)).candidate == 0  # none of the candidate: nothing to compare
    assert Odds().after((0, 0), (5, 10 * GROUP)).log_e() == 0


def test_odds_can_be_written_down_and_read_back() -> None:
    odds = drawn(0.1, 0.05, 100, 3).after((1, 1), (0, 3))
    assert Odds.of_json(json.loads(json.dumps(odds.as_json()))) == odds
