"""Counts what one process reads from the feature store."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.telemetry.cache import FAILURES, LOOK_UP_NS
from serving.telemetry.histogram import Histogram

PRESENT = "present"  # the reason of a valid value: of `features.reading.Reason`


@dataclass(slots=True)
class FeatureCounts:
    """The counts since the process started.

    values: answers for single features, by view and reason. look_ups: duration of calls of Redis, which requests share.
    failures: entities that could not be looked up, by reason.
    """

    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    look_ups: Histogram = field(default_factory=lambda: Histogram(LOOK_UP_NS))
    failures: Counter[str] = field(default_factory=Counter)


class FeatureRecorder:
    """Counts for one process. Its methods are called on the event loop."""

    def __init__(self) -> None:
        self.counts = FeatureCounts()

    def served(self, view: str, present: int, others: Iterable[Iterable[str]]) -> None:
        """Counts answers. present: how many are of entities all of whose values are valid. others: the reasons of the
        rest, by entity."""
        self.counts.values[view, PRESENT] += present
        for reasons in others:
            for reason in reasons:
                self.counts.values[view, str(reason)] += 1

    def looked_up(self, took_ns: int) -> None:
        self.counts.look_ups.add(took_ns)

    def unavailable(self, kind: str, count: int) -> None:
        self.counts.failures[kind if kind in FAILURES else "failed"] += count
