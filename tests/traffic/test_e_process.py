"""Tests the evidence for a share above or below a limit: against exact sums, and that it is a fair game."""

from fractions import Fraction
from math import comb, exp, inf, isclose, log

import pytest

from serving.traffic.e_process import log_e_above, log_e_below

LIMITS = (Fraction(1, 20), Fraction(1, 2), Fraction(19, 20))


def exact(hits: int, trials: int, limit: Fraction) -> Fraction:
    """Returns the evidence as a fraction. The share of Beta(1 + hits, 1 + misses) above the limit is a binomial sum."""
    above = sum(
        comb(trials + 1, k) * limit**k * (1 - limit) ** (trials + 1 - k) for k in range(hits + 1)
    )  # fmt: skip
    beta = Fraction(1, (trials + 1) * comb(trials, hits))
    return above * beta / ((1 - limit) * limit**hits * (1 - limit) ** (trials - hits))


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_evidence_is_that_of_exact_sums(limit: Fraction) -> None:
    for trials in (0, 1, 2, 7, 30, 120):
        for hits in range(0, trials + 1, max(1, trials // 10)):
            assert isclose(
                log_e_above(hits, trials, float(limit)), log(exact(hits, trials, limit)), rel_tol=1e-9, abs_tol=1e-9
            )


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("evidence", [log_e_above, log_e_below])
def test_at_the_limit_nobody_can_win_by_waiting(evidence: object, limit: float) -> None:
    """The mean of the evidence after one more trial is the evidence before, so its chance to reach 1/alpha is alpha."""
    assert callable(evidence)
    for trials in (0, 3, 40, 1000, 100_000):
        for hits in {0, int(trials * limit), min(trials, int(trials * limit * 1.2) + 2)}:
            after = limit * exp(evidence(hits + 1, trials + 1, limit) - evidence(hits, trials, limit))
            after += (1 - limit) * exp(evidence(hits, trials + 1, limit) - evidence(hits, trials, limit))
            assert after == pytest.approx(1, abs=1e-7)


def test_more_hits_are_more_evidence_above_and_less_below() -> None:
    above = [log_e_above(hits, 200, 0.05) for hits in range(201)]
    below = [log_e_below(hits, 200, 0.05) for hits in range(201)]
    assert above == sorted(above)
    assert below == sorted(below, reverse=True)


@pytest.mark.parametrize("trials", [10**6, 10**9])
def test_a_thousand_million_trials_are_no_trouble(trials: int) -> None:
    for share in (0, 0.01, 0.0499, 0.05, 0.0501, 0.06, 1):
        hits = int(share * trials)
        assert -50 < log_e_above(hits, trials, 0.05) < inf
        assert (log_e_above(hits, trials, 0.05) > 20) == (share > 0.0501 or (share > 0.05 and trials > 10**8))
        assert (log_e_below(hits, trials, 0.05) > 20) == (share < 0.0499 or (share < 0.05 and trials > 10**8))


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="3 hits of 2"):
        log_e_above(3, 2, 0.05)
