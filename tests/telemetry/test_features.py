"""Tests what is counted of features that are read, and the metrics of replicas and of the front."""

from dataclasses import replace

from serving.telemetry.features import FeatureCounts, FeatureRecorder
from serving.telemetry.prometheus import exposition
from serving.telemetry.snapshot import FrontSnapshot
from tests.telemetry.snapshots import cluster, replica


def counted() -> FeatureCounts:
    recorder = FeatureRecorder()
    recorder.served("stats", 80, [("present", "missing"), ("expired", "missing")])
    recorder.served("shop", 0, [])
    recorder.looked_up(300_000)
    for kind, count in (("slow", 2), ("open", 1), ("ConnectionError", 3)):
        recorder.unavailable(kind, count)
    return recorder.counts


def test_values_are_counted_by_view_and_reason() -> None:
    counts = counted()
    assert dict(counts.values) == {
        ("stats", "present"): 81,
        ("stats", "missing"): 2,
        ("stats", "expired"): 1,
        ("shop", "present"): 0,
    }
    assert dict(counts.failures) == {"slow": 2, "open": 1, "failed": 3}


def test_the_metrics_are_of_replicas_and_of_the_front() -> None:
    model = cluster(replica(features=counted()))
    page = exposition(replace(model, front=FrontSnapshot(node="10.0.0.9", features=counted()))).decode()
    values = [line for line in page.splitlines() if line.startswith("headway_features_values_total{")]
    lines = [line for line in values if "missing" in line]
    assert [line.rpartition(" ")[2] for line in lines] == ["2.0", "2.0"]
    assert ['model="scorer"' in line for line in lines] == [True, False]
    assert ['model="",reason="missing",replica="front"' in line for line in lines] == [False, True]
    assert page.count("headway_features_look_up_seconds_count") == 2
    assert "headway_features" not in exposition(cluster(replica())).decode()


def test_the_front_is_scraped_with_its_node_only() -> None:
    whole = replace(cluster(replica()), front=FrontSnapshot(node="10.0.0.9", features=counted()))
    assert "headway_features" in exposition(whole.of_node("10.0.0.9")).decode()
    assert "headway_features" not in exposition(whole.of_node("10.0.0.8")).decode()
