"""Tests what is told about quotas: their sum over replicas, their metrics, and their part of the history."""

from typing import Any

from serving.telemetry.history import History, only_of
from serving.telemetry.quotas import QuotaCounts, QuotaReading, standing
from serving.telemetry.recorder import Counts
from serving.telemetry.snapshot import ClusterSnapshot
from serving.telemetry.tenants import MOST_NAMES, OTHER, TenantCounts, TenantNames
from tests.telemetry.snapshots import cluster, replica
from tests.telemetry.test_prometheus import scraped, value

S = 1_000_000_000


def reading(remaining: int, *, refused: int = 0, admitted: int = 0, **more: Any) -> QuotaReading:
    counts = QuotaCounts(admitted=admitted, refused={"rate": refused}, limit=600, remaining=remaining)
    return QuotaReading(tenants={"acme": counts}, **more)


def test_parts_of_a_limit_add_up() -> None:
    told = standing([reading(30), reading(12)])
    assert told == {"degraded": 0, "replicas": 2, "tenants": {"acme": {"limit": 600, "left": 42}}}


def test_of_a_shared_limit_the_replica_that_was_used_last_knows_best_what_is_left() -> None:
    told = standing([reading(60, shared=True), reading(12, shared=True), reading(60, shared=True)])
    assert told["tenants"]["acme"]["left"] == 12


def test_replicas_that_do_not_reach_the_store_are_counted_and_their_parts_add_up() -> None:
    told = standing([reading(10, degraded=True), reading(10, degraded=True)])
    assert told["degraded"] == 2
    assert told["tenants"]["acme"]["left"] == 20


def test_what_is_left_of_the_day_is_told_of_tenants_that_have_a_total() -> None:
    def day(left: int, **more: Any) -> QuotaReading:
        counts = QuotaCounts(limit=600, remaining=1, day_limit=1000, day_left=left)
        return QuotaReading(tenants={"acme": counts}, **more)

    assert standing([day(30), day(12)])["tenants"]["acme"] == {
        "limit": 600, "left": 2, "day_limit": 1000, "day_left": 42,
    }  # fmt: skip
    assert standing([day(30, shared=True), day(12, shared=True)])["tenants"]["acme"]["day_left"] == 12


def test_of_tenants_that_are_counted_together_nothing_is_left_to_be_said() -> None:
    others = QuotaReading(tenants={OTHER: QuotaCounts(admitted=4)})
    assert standing([others])["tenants"] == {}
    assert value(scraped(cluster(replica(quotas=others))), "headway_tenant_quota_remaining") is None


def test_quotas_are_exported_by_tenant_and_reason() -> None:
    found = scraped(cluster(replica(quotas=reading(7, refused=5, admitted=90, degraded=True))))
    assert value(found, "headway_tenant_admitted_total", tenant="acme") == 90
    assert value(found, "headway_tenant_refused_total", tenant="acme", reason="rate") == 5
    assert value(found, "headway_tenant_refused_total", tenant="acme", reason="day") == 0
    assert value(found, "headway_tenant_quota_remaining", tenant="acme") == 7
    assert value(found, "headway_quota_degraded") == 1


def test_without_tenants_in_the_settings_nothing_of_quotas_is_exported_or_kept() -> None:
    assert not [name for name, _ in scraped(cluster(replica())) if "quota" in name or "admitted" in name]
    assert not [name for name in point(cluster(replica()), cluster(replica())) if name.startswith("over_")]


def point(*looks: ClusterSnapshot) -> dict[str, Any]:
    """Returns the last point of all models after these snapshots."""
    history = History()
    for index, snapshot in enumerate(looks):
        history.add(snapshot, at_s=1000.0 + 5 * index, now_ns=5 * index * S)
    return history.points()[-1]


def test_a_point_holds_the_refusals_since_the_snapshot_before_over_all_models() -> None:
    def look(first: int, second: int) -> ClusterSnapshot:
        one = cluster(replica(quotas=reading(0, refused=first)), name="one")
        two = cluster(replica(quotas=reading(0, refused=second)), name="two")
        return ClusterSnapshot(models=(*one.models, *two.models, *cluster(replica(), name="three").models), took_ns=1)

    last = point(look(10, 20), look(13, 24))
    assert last["over_rate"] == {"acme": 7}
    assert last["over_day"] == {}


def test_a_tenant_is_told_its_own_counts_and_no_others() -> None:
    tenants = {"acme": TenantCounts(requests=3, device_ns=S), "beta": TenantCounts(requests=9, device_ns=3 * S)}
    now = replica(counts=Counts(tenants=tenants), quotas=reading(0, refused=5))
    whole = point(cluster(replica(quotas=reading(0))), cluster(now))
    acme, beta = only_of("acme", whole), only_of("beta", whole)
    assert (acme["tenants"], acme["device_s"], acme["over_rate"]) == ({"acme": 3}, {"acme": 1}, {"acme": 5})
    assert (beta["tenants"], beta["over_rate"]) == ({"beta": 9}, {"beta": 0})
    assert only_of("gamma", whole)["tenants"] == {"gamma": 0}
    own = {"at", "seconds", "running", "wanted", "tenants", "device_s", "over_rate", "over_day", "over_concurrent"}
    assert {name for name, value in acme.items() if value} <= own
    assert set(whole) - set(acme) <= {"gpu_busy", "gpu_memory", "gpu_memory_total"}, "the page finds every field"
    assert whole["tenants"] == {"acme": 3, "beta": 9}, "the history itself is unchanged"


def test_a_tenant_that_is_called_like_the_sum_of_others_is_not_told_it() -> None:
    whole = point(cluster(replica()), cluster(replica(counts=Counts(tenants={OTHER: TenantCounts(requests=8)}))))
    assert only_of(OTHER, whole)["tenants"] == {OTHER: 0}


def test_the_first_tenants_get_names_beside_those_in_the_settings_and_keep_them() -> None:
    names = TenantNames(["acme"])
    made_up = [f"tenant {number}" for number in range(3 * MOST_NAMES)]
    labels = [names.of(tenant) for tenant in made_up]
    assert labels == [*made_up[:MOST_NAMES], *[OTHER] * (2 * MOST_NAMES)]
    assert [names.of(tenant) for tenant in made_up] == labels
    assert names.of("acme") == "acme"
    assert names.of(OTHER) == OTHER
    assert TenantNames().of("x" * 100) == OTHER, "two long names would get the same label"
