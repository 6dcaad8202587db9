"""Tests the limits of a mean: they hold at all times, and close in."""

from math import exp, log

import pytest

from serving.traffic.betting import PARTS, log_capital, lower_limit, mean, upper_limit


def test_without_values_nothing_is_known() -> None:
    assert (lower_limit({}, 0.05), upper_limit({}, 0.05), mean({})) == (0, 1, None)
    assert lower_limit({0: 50}, 0.05) == 0
    assert upper_limit({PARTS: 50}, 0.05) == 1


@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_limits_close_in_on_the_mean(alpha: float) -> None:
    widths = []
    for count in (10, 100, 1000, 10_000):
        values = {PARTS: 9 * count // 10, 0: count // 10}
        low, high = lower_limit(values, alpha), upper_limit(values, alpha)
        assert low < mean(values) < high  # type: ignore[operator]
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03


def test_less_risk_is_a_wider_limit() -> None:
    values = {PARTS: 60, 0: 40}
    assert lower_limit(values, 0.001) < lower_limit(values, 0.05) < 0.6
    assert upper_limit(values, 0.001) > upper_limit(values, 0.05) > 0.6


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_at_the_true_mean_nobody_can_win_by_waiting(share: float) -> None:
    """The mean of the capital after one more value is the capital before, so its chance to reach 1/alpha is alpha."""
    for count in (0, 5, 100, 5000):
        seen = round(count * share)
        before = log_capital({PARTS: seen, 0: count - seen}, share)
        won = log_capital({PARTS: seen + 1, 0: count - seen}, share)
        lost = log_capital({PARTS: seen, 0: count - seen + 1}, share)
        assert share * exp(won - before) + (1 - share) * exp(lost - before) == pytest.approx(1)


def test_the_limits_are_where_the_capital_reaches_its_goal() -> None:
    values = {PARTS: 300, 40: 50, 0: 100}
    low = lower_limit(values, 0.01)
    assert log_capital(values, low) >= -log(0.01) > log_capital(values, low + 0.001)
