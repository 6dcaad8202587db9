"""The server's own counters, turned into what was going on."""

from loadtest.server_watch import ServerSample, batch_sizes, points, read_sample


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


def test_nothing_is_said_across_a_restart() -> None:
    assert points([ServerSample(at_s=1.0, batches=50), ServerSample(at_s=2.0, batches=3)]) == []


def test_batch_sizes_are_those_of_the_run_alone() -> None:
    before = ServerSample(at_s=0.0, by_batch_rows={1: 100, 8: 5})
    after = ServerSample(at_s=9.0, by_batch_rows={1: 100, 8: 25, 16: 3})
    assert batch_sizes([before, after]) == {8: 20, 16: 3}
    assert batch_sizes([before]) == {}
