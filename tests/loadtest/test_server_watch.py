"""Reading the server's counters and computing means from them."""

import asyncio
import json

from loadtest.server_watch import (
    ServerSample,
    ServerWatch,
    batch_sizes,
    drops,
    points,
    read_metrics,
    read_sample,
    sample_as_json,
    sample_from_json,
)
from loadtest.wires import Address
from tests.loadtest.scripted import answer, scripted


def entry(rows: int, batches: int, queue_ns: int) -> dict[str, object]:
    count = {"count": rows, "ns": 0}
    return {
        "inference_count": rows,
        "execution_count": batches,
        "inference_stats": {"success": count, "fail": {"count": 2, "ns": 0}, "queue": {"count": rows, "ns": queue_ns}},
        "batch_stats": [{"batch_size": 8, "compute_infer": {"count": batches, "ns": 1_000_000 * batches}}],
    }


def test_the_statistics_of_several_models_are_added_up() -> None:
    sample = read_sample([entry(80, 10, 500), entry(16, 2, 100)], at_s=1.0)
    assert (sample.rows, sample.batches, sample.failed, sample.queue_ns) == (96, 12, 4, 600)
    assert sample.by_batch_rows == {8: 12}
    assert sample.compute_ns == 12_000_000


def test_the_mean_queue_is_the_time_waited_over_the_time_passed() -> None:
    before = ServerSample(at_s=1.0, rows=0, batches=0, queue_ns=0)
    after = ServerSample(at_s=3.0, rows=40, batches=10, queue_ns=8_000_000_000, compute_ns=1_000_000_000)
    (point,) = points([before, after])
    assert (point.waiting, point.batch_rows, point.busy_ratio) == (4.0, 4.0, 0.5)


def test_no_means_are_computed_across_a_restart() -> None:
    assert points([ServerSample(at_s=1.0, batches=50), ServerSample(at_s=2.0, batches=3)]) == []


def test_batch_sizes_are_those_of_the_run_alone() -> None:
    before = ServerSample(at_s=0.0, by_batch_rows={1: 100, 8: 5})
    after = ServerSample(at_s=9.0, by_batch_rows={1: 100, 8: 25, 16: 3})
    assert batch_sizes([before, after]) == {8: 20, 16: 3}
    assert batch_sizes([before]) == {}


SCRAPE = """# HELP headway_requests_total Requests that ended.
headway_requests_total{model="m",outcome="completed",reason="",replica="a",version="1"} 40.0
headway_requests_total{model="m",outcome="completed",reason="",replica="b",version="1"} 2.0
headway_requests_total{model="m",outcome="rejected",reason="queue_full",replica="a",version="1"} 7.0
headway_requests_total{model="m",outcome="expired",reason="",replica="b",version="1"} 3.0
headway_requests_total{model="m",outcome="failed",reason="model_error",replica="b",version="1"} 0.0
headway_requests_total{model="other \\"m\\"",outcome="completed",reason="",replica="c",version="1"} 99.0
headway_predictions_total{model="m",replica="a",version="1"} 80.0
headway_uptime_seconds{model="m",replica="a",version="1"} 61.5
headway_uptime_seconds{model="m",replica="b",version="1"} 9.0
headway_lanes{model="m",replica="a",version="1"} 1.0
headway_lanes{model="m",replica="b",version="1"} 1.0
headway_batches_total{model="m",reason="full",replica="a",version="1"} 12.0
headway_batches_total{model="m",reason="idle",replica="b",version="1"} 3.0
headway_stage_seconds_sum{model="m",replica="a",stage="queue",version="1"} 1.5
headway_stage_seconds_sum{model="m",replica="a",stage="compute",version="1"} 9.0
headway_batch_seconds_sum{model="m",replica="a",version="1"} 2.0
headway_batch_rows_bucket{le="1.0",model="m",replica="a",version="1"} 3.0
headway_batch_rows_bucket{le="2.0",model="m",replica="a",version="1"} 3.0
headway_batch_rows_bucket{le="4.0",model="m",replica="a",version="1"} 10.0
headway_batch_rows_bucket{le="+Inf",model="m",replica="a",version="1"} 15.0
"""


def test_a_scrape_covers_all_replicas_and_the_reasons_of_dropped_requests() -> None:
    sample = read_metrics(SCRAPE, ["m"], at_s=1.0)
    assert sample is not None
    assert (sample.answered, sample.failed, sample.rows, sample.batches) == (42, 10, 80, 15)
    assert (sample.queue_ns, sample.compute_ns) == (1_500_000_000, 2_000_000_000)
    assert sample.dropped == {"rejected: queue full": 7, "expired": 3}
    assert sample.by_batch_rows == {1: 3, 2: 0, 4: 7, 8: 5}
    assert (sample.clock_s, sample.lanes) == (61.5, 2)
    assert sample_from_json(json.loads(json.dumps(sample_as_json(sample)))) == sample


def test_time_is_measured_by_the_servers_clock_and_unchanged_counts_are_skipped() -> None:
    first = ServerSample(at_s=1.0, clock_s=60.0, lanes=2)
    again = ServerSample(at_s=2.0, clock_s=60.0, lanes=2)
    later = ServerSample(at_s=3.0, clock_s=64.0, lanes=2, queue_ns=8_000_000_000, compute_ns=4_000_000_000)
    (point,) = points([first, again, later])
    assert (point.waiting, point.busy_ratio) == (2.0, 0.5)


def test_metrics_of_other_servers_are_ignored() -> None:
    assert read_metrics(SCRAPE, ["nobody"], at_s=1.0) is None
    assert read_metrics('nv_inference_count{model="m"} 3\nup 1', ["m"], at_s=1.0) is None


def test_drops_are_those_of_the_run_the_most_frequent_first() -> None:
    before = ServerSample(at_s=0.0, dropped={"expired": 3})
    after = ServerSample(at_s=9.0, dropped={"expired": 5, "rejected: queue full": 7})
    assert list(drops([before, after]).items()) == [("rejected: queue full", 7), ("expired", 2)]


def watched(pages: dict[str, bytes], times: int) -> tuple[list[ServerSample | None], list[str]]:
    """Returns the sample of a server with these pages, and the pages that were requested."""

    def reply(index: int, head: str) -> bytes:
        page = pages.get(head.split()[1])
        return answer(404) if page is None else answer(body=page)

    async def story() -> tuple[list[ServerSample | None], list[str]]:
        async with scripted(reply) as server:
            watch = ServerWatch(Address.parse(server.url), ["m"])
            seen = [await asyncio.to_thread(watch.sample, float(at)) for at in range(times)]
            return seen, [head.split()[1] for head in server.heads]

    return asyncio.run(story())


def test_metrics_are_read_first_and_statistics_if_there_are_none() -> None:
    seen, asked = watched({"/metrics": SCRAPE.encode()}, times=2)
    assert [sample is not None and sample.answered for sample in seen] == [
        42,
        False,
    ]  # an unchanged reading is not new
    assert asked == ["/metrics", "/metrics"]
    statistics = json.dumps({"model_stats": [entry(80, 10, 500)]}).encode()
    seen, asked = watched({"/v2/models/m/stats": statistics}, times=2)
    assert [sample is not None and sample.rows for sample in seen] == [80, 80]
    assert asked == ["/metrics", "/v2/models/m/stats", "/v2/models/m/stats"]
