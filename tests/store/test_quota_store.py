"""Tests the contract of quota stores, with the one in memory and with a real Valkey.

The paces are so slow that no time that a test takes matters.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.store.base import QuotaStore, Renewal
from serving.store.connecting import Address, connect
from serving.store.memory import MemoryQuotaStore
from serving.testing.clock import ManualClock
from serving.traffic.quota import MINUTE_NS, Pace
from serving.traffic.sharing import Ask, Grant
from tests.store.conftest import NOON_NS, PATIENT_S, redis_store

Kept = tuple[asyncio.Runner, QuotaStore]
HOURLY = Pace(60 * MINUTE_NS, 10)  # a token per hour, ten at once
ACME = Ask("acme", HOURLY, None)


def renewed(kept: Kept, *asks: Ask, replica: str = "one") -> Renewal:
    runner, store = kept
    return runner.run(store.renew(replica, asks))


def granted(kept: Kept, ask: Ask) -> Grant:
    (grant,) = renewed(kept, ask).grants
    return grant


def test_replicas_get_together_what_the_limit_allows(kept: Kept) -> None:
    first = granted(kept, replace(ACME, want=6))
    assert (first.tokens, first.level, first.wait_ns, first.day_left) == (6, 4, 0, None)
    second = granted(kept, replace(ACME, want=6))
    assert (second.tokens, second.level) == (4, 0)
    assert second.wait_ns == pytest.approx(60 * MINUTE_NS, rel=0.01)
    assert granted(kept, replace(ACME, want=6)).tokens == 0


def test_what_is_given_back_is_there_for_others(kept: Kept) -> None:
    granted(kept, replace(ACME, want=10))
    assert granted(kept, replace(ACME, returned=3)).level == 3
    assert granted(kept, replace(ACME, want=10)).tokens == 3


def test_credit_is_paid_back_before_more_is_granted(kept: Kept) -> None:
    assert granted(kept, replace(ACME, charged=12)).level == -2
    grant = granted(kept, replace(ACME, want=1))
    assert grant.tokens == 0
    assert grant.wait_ns == pytest.approx(3 * 60 * MINUTE_NS, rel=0.01)
    assert granted(kept, replace(ACME, returned=4)).level == 2


def test_more_cannot_be_given_back_than_the_burst(kept: Kept) -> None:
    assert granted(kept, replace(ACME, returned=50)).level == 10
    assert granted(kept, replace(ACME, want=50)).tokens == 10


def test_several_tenants_are_renewed_in_one_call_and_do_not_meet(kept: Kept) -> None:
    names = ["acme", "acme:b", "acme:b:c", "{acme}", "ümlaut", "a b", "*"]
    renewal = renewed(kept, *(replace(ACME, tenant=name, want=count) for count, name in enumerate(names)))
    assert [grant.tokens for grant in renewal.grants] == list(range(len(names)))
    again = renewed(kept, *(replace(ACME, tenant=name, want=100) for name in names))
    assert [grant.tokens for grant in again.grants] == [10 - count for count in range(len(names))]


def test_the_same_tenant_twice_in_one_call_is_booked_one_by_one(kept: Kept) -> None:
    renewal = renewed(kept, replace(ACME, want=7), replace(ACME, want=7))
    assert [grant.tokens for grant in renewal.grants] == [7, 3]


def test_a_total_of_the_day_bounds_what_is_granted(kept: Kept) -> None:
    daily = replace(ACME, per_day=5)
    assert granted(kept, replace(daily, want=3, counted=1)).day_left == 1
    last = granted(kept, replace(daily, want=3))
    assert (last.tokens, last.day_left) == (1, 0)
    assert 0 < last.wait_ns <= 24 * 60 * MINUTE_NS
    assert granted(kept, replace(daily, returned=1)).day_left == 1
    assert granted(kept, replace(daily, charged=3)).day_left == 0


def test_the_replicas_that_are_present_are_counted(kept: Kept) -> None:
    runner, store = kept
    assert [renewed(kept, replica=name).replicas for name in ("one", "two", "one", "three")] == [1, 2, 2, 3]
    runner.run(store.leave("two", [replace(ACME, charged=10)]))
    assert renewed(kept, replica="one").replicas == 2
    assert granted(kept, replace(ACME, want=1)).tokens == 0


def test_a_replica_that_is_silent_is_not_counted_any_more() -> None:
    clock = ManualClock(NOON_NS)
    with asyncio.Runner() as runner:
        store = MemoryQuotaStore(clock)
        runner.run(store.renew("one", []))
        clock.advance(10_000_000_000)
        assert runner.run(store.renew("two", [])).replicas == 1


ASKS = st.lists(st.tuples(*[st.integers(0, 12)] * 4, st.booleans()), max_size=12)


@given(ASKS)
@settings(max_examples=60)
def test_redis_decides_as_memory_does(valkey: str, asks: Sequence[tuple[int, int, int, int, bool]]) -> None:
    with redis_store(connect(Address(url=valkey), PATIENT_S)) as (runner, theirs):
        ours = MemoryQuotaStore(ManualClock(NOON_NS))
        for want, charged, returned, counted, is_daily in asks:
            ask = Ask("acme", HOURLY, 30 if is_daily else None, want, charged, returned, counted)
            expected, found = (runner.run(store.renew("one", [ask])).grants[0] for store in (ours, theirs))
            assert (found.tokens, found.level, found.day_left) == (expected.tokens, expected.level, expected.day_left)
            assert (found.wait_ns == 0) == (expected.wait_ns == 0)


def test_a_counter_that_is_full_again_leaves_nothing_behind(valkey: str) -> None:
    client = connect(Address(url=valkey), PATIENT_S)
    with redis_store(client) as (runner, store):
        quick = Pace(1_000_000, 10)
        runner.run(store.renew("one", [Ask("acme", quick, None, want=1), Ask("none", quick, None)]))
        assert runner.run(client.exists(store._keys.quota("none"))) == 0
        assert runner.run(client.pttl(store._keys.quota("acme"))) <= 1
        runner.run(store.renew("one", [Ask("day", quick, 100, want=1)]))
        assert 0 < runner.run(client.pttl(store._keys.quota("day"))) <= 24 * 3600 * 1000


def test_scripts_that_the_server_has_forgotten_are_sent_again(valkey: str) -> None:
    client = connect(Address(url=valkey), PATIENT_S)
    with redis_store(client) as (runner, store):
        runner.run(store.renew("one", [replace(ACME, want=1)]))
        runner.run(client.script_flush())
        grants = runner.run(store.renew("one", [replace(ACME, want=1), replace(ACME, tenant="b", want=1)])).grants
        assert [grant.level for grant in grants] == [8, 9]
