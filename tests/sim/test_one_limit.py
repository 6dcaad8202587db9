"""Tests that many replicas keep one limit together, in seeded simulations of uneven load and outages of the store."""

from bisect import bisect_left
from collections.abc import Callable

import pytest

from serving.traffic.tenants import Tenant
from tests.traffic.simulated import SECOND_NS, Fleet, Outage, every_minute, steady

THOUSAND = Tenant(name="acme")
Rate = Callable[[float], float]


def moving(replica: int) -> Rate:
    """Returns a load that moves on to the next of four replicas every seven seconds."""
    return lambda second: 40.0 if int(second / 7) % 4 == replica else 0.5


UNEVEN: dict[str, list[Rate]] = {
    "uneven": [steady(23), steady(6), steady(3), steady(0.7)],
    "even": [steady(10)] * 4,
    "nearly all on one": [steady(100), steady(0.2), steady(0.1), steady(0.1)],
    "a flood": [steady(150), steady(150), steady(20), steady(1)],
    "moving": [moving(replica) for replica in range(4)],
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("load", UNEVEN.values(), ids=UNEVEN.keys())
def test_every_minute_has_the_limit_and_at_most_two_percent_more(load: list[Rate], seed: int) -> None:
    least, most = every_minute(Fleet(THOUSAND, load, seed).run(130), 0, 130)
    assert least >= 1000
    assert most <= 1020


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("forgets", [True, False], ids=["comes back empty", "comes back as it was"])
@pytest.mark.parametrize("name", ["uneven", "even", "a flood"])
def test_without_the_store_no_minute_has_a_tenth_more_and_afterwards_all_is_exact(
    name: str, seed: int, forgets: bool
) -> None:
    outage = Outage(70 * SECOND_NS, 140 * SECOND_NS, forgets)
    admitted = Fleet(THOUSAND, UNEVEN[name], seed, outages=[outage]).run(230)
    assert every_minute(admitted, 0, 230)[1] <= 1100
    during = bisect_left(admitted, 140 * SECOND_NS) - bisect_left(admitted, 80 * SECOND_NS)
    assert during >= 0.25 * 1000  # at least one replica has more requests than its share
    least, most = every_minute(admitted, 141, 230)
    assert least >= 1000
    assert most <= 1020


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_now_and_then_does_not_raise_the_limit(seed: int) -> None:
    outages = [Outage(second * SECOND_NS, second * SECOND_NS + SECOND_NS // 4, False) for second in range(5, 130, 3)]
    _, most = every_minute(Fleet(THOUSAND, UNEVEN["even"], seed, outages=outages).run(130), 0, 130)
    assert most <= 1100


@pytest.mark.parametrize("per_minute", [10, 60, 300])
def test_a_small_limit_is_exceeded_by_at_most_a_request_per_replica(per_minute: int) -> None:
    tenant = Tenant(name="small", requests_per_minute=per_minute)
    least, most = every_minute(Fleet(tenant, UNEVEN["uneven"], 1).run(200), 0, 200)
    assert least >= per_minute - 4
    assert most <= per_minute * 1.02 + 4


@pytest.mark.parametrize("seed", range(3))
def test_below_the_limit_nobody_is_refused(seed: int) -> None:
    fleet = Fleet(THOUSAND, [steady(4), steady(2), steady(1), steady(0.3)], seed)
    admitted = fleet.run(130)
    assert len(admitted) >= 0.99 * fleet.requests


def test_a_quiet_tenant_asks_less_than_once_per_request_and_nothing_at_rest() -> None:
    fleet = Fleet(THOUSAND, [steady(0.2)] * 4, 1)
    fleet.run(130)
    assert fleet.asks <= 1.2 * fleet.requests


def test_a_busy_tenant_within_its_limit_asks_a_few_times_per_second_at_any_rate() -> None:
    fleet = Fleet(Tenant(name="large", requests_per_minute=60_000), [steady(300)] * 2, 1)
    fleet.run(20)
    assert fleet.asks / 20 / 2 <= 10
    assert len(fleet.admitted_ns) >= 0.99 * fleet.requests
