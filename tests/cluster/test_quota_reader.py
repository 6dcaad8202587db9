"""Tests what a replica reads of its quotas for a snapshot."""

from serving.cluster.replica.counting import quota_reader
from serving.gateway import quotas
from serving.gateway.quotas import Quotas
from serving.gateway.tenant_quota import TenantQuota
from serving.telemetry.quotas import REFUSALS
from serving.telemetry.tenants import MOST_NAMES, OTHER
from serving.testing.clock import ManualClock
from serving.traffic.alone import Reason
from serving.traffic.tenants import Tenant

S = 1_000_000_000
ACME = Tenant(name="acme", requests_per_minute=60, burst=3, concurrent=2)


def quota(*tenants: Tenant) -> Quotas:
    return Quotas({tenant.name: tenant for tenant in tenants}, clock=ManualClock(S), calendar=ManualClock(S))


def test_it_tells_what_was_admitted_refused_and_is_left_of_each_tenant() -> None:
    own = quota(ACME)
    for _ in range(4):
        own.admit("acme", S)
    reader = quota_reader(TenantQuota(own), ["acme"], now_ns=lambda: S)
    assert reader is not None
    told = reader()
    assert (told.shared, told.degraded) == (False, False)
    counts = told.tenants["acme"]
    assert (counts.admitted, counts.limit, counts.remaining) == (2, 60, 1)
    assert counts.refused == {"rate": 0, "day": 0, "concurrent": 2}


def test_telemetry_and_quotas_have_the_same_words_for_refusals() -> None:
    assert tuple(Reason) == REFUSALS


def test_many_tenants_are_counted_together_and_the_sum_never_falls() -> None:
    own = quota(ACME)
    reader = quota_reader(TenantQuota(own), ["acme"], now_ns=lambda: S)
    assert reader is not None
    before = 0
    for number in range(quotas.MOST_TENANTS + 200):  # the last ones take the place of others
        own.admit(f"tenant {number}", number * S)
        own.release(f"tenant {number}")
        if number % 500 == 0:
            others = reader().tenants.get(OTHER)
            after = others.admitted if others else 0
            assert after >= before
            before = after
    told = reader().tenants
    assert len(told) <= MOST_NAMES + 2
    assert sum(counts.admitted for counts in told.values()) == quotas.MOST_TENANTS + 200
    assert told[OTHER].remaining is None


def test_without_tenants_there_is_nothing_to_read() -> None:
    assert quota_reader(None, ()) is None
