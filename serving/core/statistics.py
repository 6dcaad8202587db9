"""The counts and durations of a model's requests, in the categories of the Open Inference statistics extension."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self


@dataclass(slots=True)
class Duration:
    """A number of events and their total time in ns."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def __iadd__(self, other: "Duration") -> Self:
        self.add(other.ns, other.count)
        return self


@dataclass(slots=True)
class BatchStatistics:
    """The durations of batches of one size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def __iadd__(self, other: "BatchStatistics") -> Self:
        self.compute_input += other.compute_input
        self.compute_infer += other.compute_infer
        self.compute_output += other.compute_output
        return self


@dataclass(slots=True)
class ModelStatistics:
    """The statistics of one model. `inference_count` counts rows, `execution_count` batches, `Duration.count` requests.

    last_inference_ms: time of day of the last inference, in ms since 1970; 0 before the first.
    cache_hit, cache_miss: requests answered from the cache, and those that were not; the time of looking them up.
    """

    inference_count: int = 0
    execution_count: int = 0
    last_inference_ms: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    by_batch_rows: dict[int, BatchStatistics] = field(default_factory=dict)

    def __iadd__(self, other: "ModelStatistics") -> Self:
        self.inference_count += other.inference_count
        self.execution_count += other.execution_count
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)
        self.success += other.success
        self.fail += other.fail
        self.queue += other.queue
        self.compute_input += other.compute_input
        self.compute_infer += other.compute_infer
        self.compute_output += other.compute_output
        self.cache_hit += other.cache_hit
        self.cache_miss += other.cache_miss
        for rows, batch in other.by_batch_rows.items():
            own = self.by_batch_rows.setdefault(rows, BatchStatistics())
            own += batch
        return self


@dataclass(slots=True)
class WireTimes:
    """The event loop's time for decoding and encoding messages, without the engine's.

    decode: from the complete message to its submission to the engine. encode: from the outcome to the encoded answer.
    """

    decode: Duration = field(default_factory=Duration)
    encode: Duration = field(default_factory=Duration)


def total(parts: Iterable[ModelStatistics]) -> ModelStatistics:
    """Returns the sum of the statistics of several replicas."""
    result = ModelStatistics()
    for part in parts:
        result += part
    return result
