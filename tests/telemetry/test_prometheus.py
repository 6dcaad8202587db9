"""Tests the table of metrics and the exported text, which prometheus-client's own parser reads back."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serving.core.outcome import Timings
from serving.core.statistics import Duration, ModelStatistics, WireTimes
from serving.telemetry import metrics
from serving.telemetry.prometheus import exposition
from serving.telemetry.recorder import Counts, Recorder
from serving.telemetry.snapshot import ClusterSnapshot, GpuReading
from tests.core.stories import ms, request
from tests.telemetry.snapshots import cluster, replica

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
Sample = tuple[str, tuple[tuple[str, str], ...]]


def scraped(snapshot: ClusterSnapshot) -> dict[Sample, float]:
    text = exposition(snapshot).decode()
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(found) == len(lines), "a series was exported twice"
    return found


def value(found: dict[Sample, float], name: str, **labels: str) -> float | None:
    """Returns the value of the only series with this name and, among others, these labels; None without one."""
    values = [
        value
        for (series, own), value in found.items()
        if series == name and all(item in own for item in labels.items())
    ]
    assert len(values) <= 1, values
    return values[0] if values else None


def served() -> Counts:
    recorder = Recorder()
    requests = [request(tenant="acme"), request(tenant="acme"), request(tenant="beta")]
    recorder.requests_completed(requests, [ms(3), ms(180), ms(1)], Timings(ms(1), ms(30), ms(0), 3))
    return recorder.counts()


def test_a_duration_in_nanoseconds_is_scraped_in_seconds_by_its_bucket() -> None:
    found = scraped(cluster(replica(counts=served())))
    assert value(found, "headway_request_seconds_bucket", le="0.2") == 2
    assert value(found, "headway_request_seconds_bucket", le="0.3") == 3
    assert value(found, "headway_request_seconds_bucket", le="+Inf") == 3
    assert value(found, "headway_request_seconds_sum") == 0.277
    assert value(found, "headway_queue_wait_seconds_bucket", le="0.001") == 1
    assert value(found, "headway_tenant_requests_total", tenant="acme") == 2
    assert value(found, "headway_tenant_requests_total", tenant="beta") == 1


def test_requests_are_exported_by_outcome_and_reason_and_by_tritons_reasons() -> None:
    statistics = ModelStatistics()
    statistics.success.add(ms(40), 4)
    counts = Counts()
    counts.ended.update(
        {
            ("rejected", "queue_full"): 5,
            ("failed", "model_error"): 1,
            ("failed", "invalid_input"): 2,
            ("expired", ""): 3,
        }
    )
    found = scraped(cluster(replica(statistics=statistics, counts=counts)))
    assert value(found, "headway_requests_total", outcome="completed") == 4
    assert value(found, "headway_requests_total", outcome="rejected", reason="queue_full") == 5
    assert value(found, "headway_requests_total", outcome="rejected", reason="draining") == 0
    assert value(found, "nv_inference_request_success", model="scorer", version="1") == 4
    assert value(found, "nv_inference_request_failure", reason="REJECTED") == 8
    assert value(found, "nv_inference_request_failure", reason="BACKEND") == 1
    assert value(found, "nv_inference_request_failure", reason="OTHER") == 2
    assert value(found, "nv_inference_request_duration_us") == 40_000


def test_all_phases_are_exported_and_copies_only_where_a_device_has_a_clock() -> None:
    wire = WireTimes(Duration(4, ms(2)), Duration(3, ms(1)))
    counts = Counts()
    phases = {"decode", "queue", "prepare", "compute", "finish", "encode"}
    for expected in (phases, phases | {"copy_in", "copy_out"}):
        found = scraped(cluster(replica(wire=wire, counts=counts)))
        assert {dict(own)["stage"] for name, own in found if name == "headway_stage_seconds_count"} == expected
        assert value(found, "headway_stage_seconds_sum", stage="decode") == 0.002
        assert value(found, "headway_stage_seconds_count", stage="encode") == 3
        counts.copied_in.add(ms(1))
        counts.copied_out.add(ms(1))
    assert value(found, "headway_stage_seconds_sum", stage="copy_out") == 0.001


def test_gpus_cost_and_bounds_are_absent_where_there_are_none() -> None:
    names = {name for name, _ in scraped(cluster(replica()))}
    assert not {name for name in names if "gpu" in name or "cost" in name or "replicas_limit" in name}


def test_gpus_and_cost_are_exported_where_there_are_any() -> None:
    gpu = GpuReading(uuid="GPU-1", busy_ratio=0.5, memory_used_bytes=3, memory_total_bytes=8)
    statistics = ModelStatistics(inference_count=4000)
    found = scraped(cluster(replica(gpus=(gpu,), price_per_hour=2.0, statistics=statistics), limit=10))
    assert value(found, "headway_gpu_busy_ratio", gpu="GPU-1") == 0.5
    assert value(found, "nv_gpu_memory_used_bytes", gpu_uuid="GPU-1") == 3
    assert value(found, "nv_gpu_power_usage") is None
    assert value(found, "headway_cost_total") == 2.0
    assert value(found, "headway_cost_per_thousand_predictions") == 0.5
    assert value(found, "headway_replicas_limit") == 10


def test_replicas_have_series_of_their_own_and_a_node_exports_only_those_of_its_replicas() -> None:
    two = cluster(replica(queued=3), replica(replica="def", node="10.0.0.2", queued=4), silent=1)
    found = scraped(two)
    assert value(found, "headway_queued_requests", replica="abc") == 3
    assert value(found, "headway_queued_requests", replica="def") == 4
    assert value(found, "headway_replicas_silent", model="scorer") == 1
    own = scraped(two.of_node("10.0.0.2"))
    assert value(own, "headway_queued_requests") == 4
    assert value(own, "headway_replicas_running") == 2


def test_a_name_that_was_chosen_to_break_the_format_does_not() -> None:
    recorder = Recorder()
    recorder.requests_completed([request(tenant='a"} 1\n\\')], [1], Timings(0, 0, 0, 1))
    assert value(scraped(cluster(replica(counts=recorder.counts()))), "headway_tenant_requests_total") == 1


def test_every_metric_has_one_name_a_unit_where_its_name_says_so_and_a_meaning() -> None:
    table = (*metrics.OF_REPLICA, *metrics.OF_MODEL, *metrics.OF_TRITON)
    assert len({metric.name for metric in table}) == len(table)
    for metric in table:
        assert metric.meaning.endswith("."), metric.name
        for unit in ("seconds", "bytes", "ratio", "watts", "celsius"):
            assert not metric.name.endswith(f"_{unit}") or metric.unit == unit, metric.name


def test_the_documentation_lists_every_metric() -> None:
    table = DOCS.read_text().partition("<!-- headway metrics --markdown -->\n")[2].partition("<!-- end -->")[0]
    assert table == metrics.markdown(), "paste what `headway metrics --markdown` prints"
