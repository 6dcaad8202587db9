"""The result of one round on one server, and the summary over the rounds. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One load on one server."""

    peer: str
    work: str
    answered: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: dict[str, float]  # by process label, all of that server's
    generator_cpu_s: float
    others_cpu_s: float  # CPU time of other processes meanwhile, which disturb this sample
    right: bool | None  # the server's answer equals the offline one; None if the work has none

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    @property
    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds per answered request, by process label."""
        return {name: seconds * 1e6 / max(1, self.answered) for name, seconds in self.cpu_s.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One server and one work over all rounds: medians, so that one disturbed round has little effect."""

    peer: str
    work: str
    rounds: int
    per_second: float
    cpu_us: float
    cpu_us_low: float
    cpu_us_high: float
    cpu_us_by_process: dict[str, float]
    p50_ms: float
    p99_ms: float
    failed: int
    generator_cores: float
    haproxy_cores: float
    others_cores: float
    right: bool | None


def draw_together(samples: Sequence[Sample]) -> list[Row]:
    """Returns one row per server and work, in the order in which they first appear."""
    keys = dict.fromkeys((sample.work, sample.peer) for sample in samples)
    return [_row([sample for sample in samples if (sample.work, sample.peer) == key]) for key in keys]


def _row(samples: Sequence[Sample]) -> Row:
    totals = [sum(sample.cpu_us.values()) for sample in samples]
    labels = dict.fromkeys(label for sample in samples for label in sample.cpu_us)
    by_process = {label: median(sample.cpu_us.get(label, 0.0) for sample in samples) for label in labels}
    verdicts = [sample.right for sample in samples if sample.right is not None]
    return Row(
        peer=samples[0].peer,
        work=samples[0].work,
        rounds=len(samples),
        per_second=median(sample.per_second for sample in samples),
        cpu_us=median(totals),
        cpu_us_low=min(totals),
        cpu_us_high=max(totals),
        cpu_us_by_process=dict(sorted(by_process.items(), key=lambda item: -item[1])),
        p50_ms=median(sample.p50_ms for sample in samples),
        p99_ms=median(sample.p99_ms for sample in samples),
        failed=sum(sample.failed for sample in samples),
        generator_cores=median(sample.generator_cpu_s / sample.seconds for sample in samples),
        haproxy_cores=median(_haproxy_cpu_s(sample) / sample.seconds for sample in samples),
        others_cores=median(sample.others_cpu_s / sample.seconds for sample in samples),
        right=all(verdicts) if verdicts else None,
    )


def _haproxy_cpu_s(sample: Sample) -> float:
    return sum(seconds for label, seconds in sample.cpu_s.items() if label == "haproxy")


def best_offline(rounds: Sequence[dict[int, float]]) -> tuple[dict[int, float], int]:
    """Returns the rows per second by batch size (median over the rounds), and the batch size with the highest rate."""
    table = {batch: median(each[batch] for each in rounds) for batch in rounds[0]}
    return table, max(table, key=lambda batch: table[batch])
