"""The counters behind the statistics extension of the protocol."""

from serving.core.batch import Batch
from serving.core.clock import Calendar, Clock
from serving.core.outcome import Timings
from serving.core.statistics import BatchStatistics, ModelStatistics
from serving.runtime.forwarding import Forwarded


class Bookkeeper:
    """Counts the requests and batches of one model. Completed requests are added per batch, all others one by one."""

    def __init__(self, calendar: Clock | None = None) -> None:
        self._calendar = calendar or Calendar()
        self.statistics = ModelStatistics()
        self.missed = 0
        self.busy_ns = 0

    def missed_out(self, count: int) -> None:
        """Adds requests refused or expired for lack of time or queue space: more replicas would have helped."""
        self.missed += count

    def failed(self, count: int = 1) -> None:
        """Counts requests with an outcome other than Completed."""
        self.statistics.fail.add(0, count)

    def completed(self, count: int, queue_ns: int, timings: Timings) -> None:
        """Adds `count` completed requests of one batch. queue_ns: the sum of their waiting times."""
        statistics = self.statistics
        statistics.last_inference_ms = self._calendar.now_ns() // 1_000_000
        statistics.queue.add(queue_ns, count)
        statistics.compute_input.add(timings.prepare_ns * count, count)
        statistics.compute_infer.add(timings.compute_ns * count, count)
        statistics.compute_output.add(timings.finish_ns * count, count)
        each_ns = timings.prepare_ns + timings.compute_ns + timings.finish_ns
        statistics.success.add(queue_ns + each_ns * count, count)

    def generated(self, steps: int, queue_ns: int, timings: Timings) -> None:
        """Adds one completed request of a generating model, which took `steps` steps."""
        self.completed(1, queue_ns, timings)
        self.statistics.inference_count += 1
        self.statistics.execution_count += steps

    def executed(self, batch: Batch, done: Forwarded, occupied_ns: int, now_ns: int) -> None:
        """Adds one batch. occupied_ns: the lane's time for it. Each forward pass of a bisected batch counts."""
        statistics = self.statistics
        self.busy_ns += occupied_ns
        statistics.execution_count += max(1, len(done.pieces))
        statistics.inference_count += batch.rows
        own = statistics.by_batch_rows.setdefault(batch.rows, BatchStatistics())
        own.compute_input.add(done.prepare_ns)
        own.compute_infer.add(done.compute_ns)
        own.compute_output.add(now_ns - done.done_ns)
