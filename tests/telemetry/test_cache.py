"""Tests what the cache is reported to do: its counts, the time and money it saves, and the points of the dashboard."""

from typing import Any

from serving.core.outcome import Cancelled
from serving.telemetry.cache import CacheCounts, CacheRecorder
from serving.telemetry.history import History
from serving.telemetry.prometheus import exposition
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import ReplicaSnapshot
from tests.telemetry.snapshots import cluster, replica

MS = 1_000_000
S = 1_000_000_000


def counted(hits: int, misses: int, saved_ns: int = 0) -> CacheCounts:
    counts = CacheCounts(missed=misses, saved_ns=saved_ns)
    counts.answered["memory"] = hits
    return counts


def test_the_time_saved_is_that_of_the_rows_at_their_present_price_and_never_falls() -> None:
    row_ns = 0
    recorder = CacheRecorder(Recorder(), lambda: row_ns)
    recorder.answered("acme", "memory", 4)
    assert recorder.counts(0, 0).saved_ns == 0  # no row was computed here yet
    row_ns = 3 * MS
    recorder.answered("acme", "shared", 1)
    assert recorder.counts(0, 0).saved_ns == 15 * MS
    row_ns = 1 * MS
    assert recorder.counts(0, 0).saved_ns == 15 * MS
    recorder.answered("acme", "flight", 2)
    assert recorder.counts(0, 0).saved_ns == 17 * MS


def test_requests_that_never_reach_the_engine_are_counted_for_their_tenants() -> None:
    recorder = Recorder(["acme"])
    cache = CacheRecorder(recorder, lambda: MS)
    cache.answered("acme", "memory", 1)
    cache.missed()
    cache.ended("acme", Cancelled())
    counts = cache.counts(3, 500)
    assert (counts.hits, counts.missed, counts.answers, counts.bytes) == (1, 1, 3, 500)
    assert recorder.counts().tenants["acme"].requests == 2
    assert recorder.counts().ended["cancelled", ""] == 1


def test_unknown_failures_of_the_store_share_one_name() -> None:
    cache = CacheRecorder(Recorder(), lambda: MS)
    for kind in ("slow", "ConnectionError", "ResponseError"):
        cache.unavailable(kind, 2)
    assert dict(cache.counts(0, 0).failures) == {"slow": 2, "failed": 4}


def test_the_money_saved_is_the_price_of_the_time_on_the_lanes() -> None:
    priced = replica(cache=counted(1, 1, saved_ns=3600 * S), price_per_hour=8.0, lanes=4)
    assert priced.saved_cost == 2.0
    assert replica(cache=counted(1, 1)).saved_cost is None
    assert replica(price_per_hour=8.0).saved_cost is None


def test_metrics_are_there_for_models_with_a_cache_and_absent_for_others() -> None:
    page = exposition(cluster(replica(cache=counted(7, 3), price_per_hour=1.0))).decode()
    own = 'model="scorer",replica="abc"'
    assert f'headway_cache_requests_total{{{own},result="hit",source="memory",version="1"}} 7.0' in page
    assert f'headway_cache_requests_total{{{own},result="hit",source="shared",version="1"}} 0.0' in page
    assert f'headway_cache_requests_total{{{own},result="miss",source="",version="1"}} 3.0' in page
    assert 'headway_cache_failures_total{model="scorer",reason="slow",replica="abc",version="1"} 0.0' in page
    assert f'headway_cache_saved_cost_total{{{own},version="1"}} 0.0' in page
    assert "headway_cache" not in exposition(cluster(replica())).decode()


def looked(*looks: list[ReplicaSnapshot]) -> list[dict[str, Any]]:
    history = History()
    for number, replicas in enumerate(looks):
        history.add(cluster(*replicas), at_s=1000.0 + 5 * number, now_ns=5 * number * S)
    return history.points("scorer")


def test_points_hold_what_the_cache_did_between_two_looks_over_all_replicas() -> None:
    def both(one: int, two: int) -> list[ReplicaSnapshot]:
        return [
            replica(replica=name, cache=counted(hits, hits, saved_ns=hits * S // 2), price_per_hour=7200.0)
            for name, hits in (("a", one), ("b", two))
        ]

    (point,) = looked(both(10, 20), both(13, 24))
    assert point["cache"] == {"hit": 7, "miss": 7, "saved_s": 3.5, "saved_cost": 7.0}


def test_points_of_models_without_a_cache_say_nothing_of_one() -> None:
    (point,) = looked([replica()], [replica()])
    assert "cache" not in point
