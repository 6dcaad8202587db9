"""Tests the history of the dashboard: the points between two snapshots, and their sums."""

import json
from collections import Counter
from typing import Any

from serving.core.statistics import Duration, ModelStatistics
from serving.telemetry.history import History
from serving.telemetry.recorder import Counts
from serving.telemetry.snapshot import ClusterSnapshot, GpuReading
from serving.telemetry.tenants import TenantCounts
from tests.core.stories import ms
from tests.telemetry.snapshots import cluster, replica

S = 1_000_000_000


def served(completed: int, *, rows: int = 0, latency_ms: float = 8, **counts: Any) -> dict[str, Any]:
    """Returns the statistics and counts of a replica after `completed` requests."""
    counted = Counts(**counts)
    for _ in range(completed):
        counted.request_ns.add(ms(latency_ms))
    statistics = ModelStatistics(inference_count=rows, success=Duration(count=completed), execution_count=rows // 4)
    return {"statistics": statistics, "counts": counted}


def looked(history: History, *looks: ClusterSnapshot, every_s: int = 5) -> History:
    for index, snapshot in enumerate(looks):
        history.add(snapshot, at_s=1000.0 + index * every_s, now_ns=index * every_s * S)
    return history


def test_a_point_holds_the_counts_since_the_snapshot_before() -> None:
    before = replica(**served(10, rows=40), cpu_ns=2 * S)
    after = replica(
        **served(
            25,
            rows=100,
            ended=Counter({("rejected", "queue_full"): 3, ("failed", "invalid_input"): 2}),
            cells_asked=60,
            cells_computed=80,
            tenants={"acme": TenantCounts(requests=15, device_ns=2 * S)},
        ),
        cpu_ns=5 * S,
        queued=4,
        expected_wait_ns=ms(30),
    )
    (point,) = looked(History(), cluster(before), cluster(after)).points("scorer")
    assert point["at"] == 1005
    assert point["seconds"] == 5
    assert point["ended"] == {"completed": 15, "rejected": 3, "invalid": 2}
    assert (point["rows"], point["batches"]) == (60, 15)
    assert (point["asked"], point["computed"]) == (60, 80)
    assert sum(point["latency"].values()) == 15
    assert point["tenants"] == {"acme": 15}
    assert point["device_s"] == {"acme": 2}
    assert (point["cpu_s"], point["queued"], point["wait_ms"]) == (3, 4, 30)
    assert point["cost"] is None


def test_the_first_snapshot_is_only_the_base_of_the_counts() -> None:
    assert looked(History(), cluster(replica(**served(10)))).points() == []


def test_a_new_replica_counts_from_its_start_and_one_that_was_silent_from_when_it_was_last_seen() -> None:
    old, new = replica(replica="old", **served(100)), replica(replica="new", uptime_ns=3 * S, **served(7))
    history = looked(History(), cluster(old), cluster(new), cluster(replica(replica="old", **served(130)), new))
    assert [point["ended"] for point in history.points("scorer")] == [{"completed": 7}, {"completed": 30}]


def test_the_cpu_time_of_a_replicas_start_is_left_out() -> None:
    early, later = replica(uptime_ns=3 * S, cpu_ns=30 * S), replica(uptime_ns=8 * S, cpu_ns=34 * S)
    points = looked(History(), cluster(), cluster(early), cluster(later)).points("scorer")
    assert [point["cpu_s"] for point in points] == [0, 4]


def test_the_counts_of_an_old_replica_seen_for_the_first_time_are_left_out() -> None:
    history = looked(History(), cluster(), cluster(replica(**served(1000))), cluster(replica(**served(1001))))
    assert [point["ended"] for point in history.points("scorer")] == [{}, {"completed": 1}]


def test_the_most_frequent_classes_are_kept_and_the_others_are_summed() -> None:
    said = {f"class {number}": 20 + number for number in range(14)}
    (point,) = looked(History(), cluster(replica()), cluster(replica(predictions=said))).points("scorer")
    assert len(point["classes"]) == 11
    assert point["classes"]["class 13"] == 33
    assert point["classes"]["other"] == 20 + 21 + 22 + 23


def test_all_models_together_are_their_sum() -> None:
    def both(first: int, second: int) -> ClusterSnapshot:
        one = cluster(replica(**served(first)), name="one", wanted=2)
        two = cluster(replica(**served(second)), name="two")
        return ClusterSnapshot(models=(*one.models, *two.models), took_ns=1)

    (point,) = looked(History(), both(0, 0), both(3, 4)).points()
    assert point["ended"] == {"completed": 7}
    assert sum(point["latency"].values()) == 7
    assert (point["running"], point["wanted"]) == (2, 3)


def test_it_keeps_no_more_points_than_configured() -> None:
    history = looked(History(kept=3), *(cluster(replica(**served(count))) for count in range(10)))
    assert [point["at"] for point in history.points("scorer")] == [1035, 1040, 1045]
    assert [point["at"] for point in history.points("scorer", since_s=1040)] == [1045]


def test_a_gpu_shared_by_two_replicas_is_counted_once_and_absent_without_one() -> None:
    gpu = GpuReading(uuid="GPU-1", busy_ratio=0.5, memory_used_bytes=10, memory_total_bytes=80)
    shared = cluster(replica(replica="a", gpus=(gpu,)), replica(replica="b", gpus=(gpu,)))
    (point,) = looked(History(), shared, shared).points()
    assert (point["gpu_busy"], point["gpu_memory"], point["gpu_memory_total"]) == (0.5, 10, 80)
    (bare,) = looked(History(), cluster(replica()), cluster(replica())).points()
    assert "gpu_busy" not in bare


def test_busy_is_the_share_of_its_lanes_and_cost_what_its_time_costs() -> None:
    def look(busy_ms: float, hours: float) -> ClusterSnapshot:
        fields = served(1, rows=4)
        fields["counts"].batch_ns.add(ms(busy_ms))
        return cluster(replica(lanes=2, price_per_hour=36.0, uptime_ns=int(hours * 3600 * S), **fields))

    (point,) = looked(History(), look(1000, 1), look(6000, 1 + 5 / 3600)).points("scorer")
    assert point["busy"] == 0.5
    assert abs(point["cost"] - 0.05) < 1e-9


def test_a_restored_history_continues_without_points_that_are_too_old() -> None:
    looks = [cluster(replica(**served(10 * count))) for count in range(4)]
    before = looked(History(), *looks)
    after = History()
    after.restore(json.loads(json.dumps(before.lines())), since_s=1005.0)
    assert after.points("scorer") == before.points("scorer", 1005.0)
    after.add(looks[3], at_s=1100.0, now_ns=0)  # the first snapshot only is the base of the counts
    after.add(cluster(replica(**served(35))), at_s=1105.0, now_ns=5 * S)
    assert [point["at"] for point in after.points()] == [1010.0, 1015.0, 1105.0]
    assert after.points()[-1]["ended"] == {"completed": 5}
