"""Tests the pace against a token bucket in fractions, the daily total, and what a tenant may do."""

from bisect import bisect_left
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.traffic.quota import DAY_NS, MINUTE_NS, DailyTotal, Pace
from serving.traffic.tenants import Tenant

SECOND_NS = 1_000_000_000
PAUSES = st.lists(st.integers(0, 3 * SECOND_NS), max_size=60)


class Bucket:
    """A token bucket as one would explain it."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.level = Fraction(pace.burst)
        self._at_ns = 0

    def refill(self, now_ns: int) -> None:
        earned = Fraction(now_ns - self._at_ns, self._pace.interval_ns)
        self.level = min(Fraction(self._pace.burst), self.level + earned)
        self._at_ns = now_ns


@given(PAUSES, st.integers(1, 5000), st.integers(1, 20), st.integers(1, 4))
def test_a_pace_admits_what_a_bucket_holds(pauses: list[int], per_minute: int, burst: int, tokens: int) -> None:
    pace, clear_ns, now_ns = Pace.per_minute(per_minute, burst), 0, 0
    bucket = Bucket(pace)
    for pause_ns in pauses:
        now_ns += pause_ns
        bucket.refill(now_ns)
        assert pace.level(clear_ns, now_ns) == bucket.level // 1
        clear_ns, wait_ns = pace.step(clear_ns, now_ns, tokens)
        assert (wait_ns == 0) == (bucket.level >= tokens)
        if wait_ns == 0:
            bucket.level -= tokens
        elif tokens <= burst:
            assert pace.step(clear_ns, now_ns + wait_ns, tokens)[1] == 0
            assert pace.step(clear_ns, now_ns + wait_ns - 1, tokens)[1] == 1


@given(st.lists(st.integers(0, SECOND_NS // 4), min_size=100, max_size=400), st.integers(1, 300), st.integers(1, 20))
def test_no_minute_has_more_than_the_limit_and_the_burst(pauses: list[int], per_minute: int, burst: int) -> None:
    pace, clear_ns, now_ns = Pace.per_minute(per_minute, burst), 0, 0
    admitted = []
    for pause_ns in pauses:
        now_ns += pause_ns
        clear_ns, wait_ns = pace.step(clear_ns, now_ns)
        if not wait_ns:
            admitted.append(now_ns)
    for index, begin_ns in enumerate(admitted):
        assert bisect_left(admitted, begin_ns + MINUTE_NS) - index <= per_minute + burst


def test_demand_above_the_limit_gets_exactly_the_limit() -> None:
    pace, clear_ns, admitted = Pace.per_minute(1000, 1), 0, 0
    for now_ns in range(0, 3 * MINUTE_NS, 10_000_000):
        clear_ns, wait_ns = pace.step(clear_ns, now_ns)
        admitted += not wait_ns
    assert admitted == 3000


def test_what_is_given_back_can_be_taken_again() -> None:
    pace = Pace.per_minute(60, 3)
    clear_ns = pace.take(0, 0, 3)
    assert pace.level(clear_ns, 0) == 0
    assert pace.level(pace.take(clear_ns, 0, -2), 0) == 2
    assert pace.level(pace.take(0, 0, 5), 0) == -2  # more than there were, to be earned first
    assert pace.wait_ns(pace.take(0, 0, 5), 0) == 3 * SECOND_NS


def test_a_new_day_begins_at_midnight_also_after_quiet_days() -> None:
    day = DailyTotal(2, ends_ns=10)
    day.count()
    day.count()
    assert day.left(9) == 0
    assert day.left(10) == 2
    day.count()
    assert day.left(10 + 3 * DAY_NS - 1) == 2
    assert day.ends_ns == 10 + 3 * DAY_NS


def test_a_tenant_has_a_thousand_a_minute_and_a_hundredth_of_them_at_once() -> None:
    tenant = Tenant(name="acme")
    assert (tenant.requests_per_minute, tenant.at_once) == (1000, 10)
    assert Tenant(name="small", requests_per_minute=20).at_once == 1
    assert Tenant(name="bursty", burst=200).at_once == 200


def test_a_tenant_sees_all_models_or_those_that_are_named() -> None:
    assert Tenant(name="acme").may_see("any")
    assert not Tenant(name="acme", models=frozenset({"a"})).may_see("b")


@pytest.mark.parametrize("wrong", [{"requests_per_minute": 0}, {"burst": 0}, {"weight": 0.0}])
def test_a_tenant_without_any_right_is_no_tenant(wrong: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        Tenant(**({"name": "acme"} | wrong))  # type: ignore[arg-type]
