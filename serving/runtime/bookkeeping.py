"""Adds up what the statistics extension of the protocol reports."""

from serving.core.batch import Batch
from serving.core.outcome import Completed, Outcome
from serving.core.statistics import BatchStatistics, ModelStatistics
from serving.runtime.lane import Forwarded


class Bookkeeper:
    def __init__(self) -> None:
        self.statistics = ModelStatistics()

    def ended(self, outcome: Outcome) -> None:
        statistics = self.statistics
        statistics.outcomes[type(outcome).__name__] += 1
        if isinstance(outcome, Completed):
            timings = outcome.timings
            statistics.success.add(timings.queue_ns + timings.prepare_ns + timings.compute_ns + timings.finish_ns)
            statistics.queue.add(timings.queue_ns)
            statistics.compute_input.add(timings.prepare_ns)
            statistics.compute_infer.add(timings.compute_ns)
            statistics.compute_output.add(timings.finish_ns)
        else:
            statistics.fail.add(0)

    def executed(self, batch: Batch, done: Forwarded, now_ns: int) -> None:
        statistics = self.statistics
        statistics.execution_count += max(1, len(done.pieces))
        statistics.inference_count += batch.rows
        own = statistics.by_batch_rows.setdefault(batch.rows, BatchStatistics())
        own.compute_input.add(done.prepare_ns)
        own.compute_infer.add(done.compute_ns)
        own.compute_output.add(now_ns - done.done_ns)
