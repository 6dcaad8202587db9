"""Counts what the prediction cache of a replica does."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.core.outcome import Outcome
from serving.telemetry.histogram import Histogram
from serving.telemetry.recorder import MS, Recorder, named

SOURCES = ("memory", "shared", "flight")  # where an answer was found: values of `cache.backend.Source`
FAILURES = ("open", "slow", "busy", "garbage", "failed")  # why the shared store was of no use
LOOK_UP_NS = tuple(int(ms * MS) for ms in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100))


@dataclass(slots=True)
class CacheCounts:
    """The counts since the replica started.

    answered: requests by the source of their answer. missed: requests that had to be computed.
    look_ups: duration of look-ups in the shared store; requests that arrive together share one.
    failures: look-ups, and answers to store, with which the shared store was of no use, by reason.
    ended: requests without an answer that were not computed themselves, by (outcome, reason): they waited for the
        answer to an equal one.
    saved_ns: device time that computing the answered requests would have taken. answers, bytes: in memory now.
    """

    answered: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    look_ups: Histogram = field(default_factory=lambda: Histogram(LOOK_UP_NS))
    failures: Counter[str] = field(default_factory=Counter)
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    saved_ns: int = 0
    answers: int = 0
    bytes: int = 0

    @property
    def hits(self) -> int:
        return self.answered.total()


class CacheRecorder:
    """Counts for one cache, and tells the engine's recorder about requests that never reached the engine.

    row_ns: returns the device time that a row has taken on average; 0 as long as none was computed.
    """

    def __init__(self, recorder: Recorder, row_ns: Callable[[], float]) -> None:
        self._counts = CacheCounts()
        self._recorder = recorder
        self._row_ns = row_ns
        self._rows = 0  # answered since the time saved was last computed

    def counts(self, answers: int, size: int) -> CacheCounts:
        """Returns the live counts, not a copy. answers, size: in memory now."""
        if row_ns := self._row_ns():
            self._counts.saved_ns += int(self._rows * row_ns)
            self._rows = 0
        self._counts.answers, self._counts.bytes = answers, size
        return self._counts

    def answered(self, tenant: str, source: str, rows: int) -> None:
        self._counts.answered[source] += 1
        self._rows += rows
        self._recorder.request_cached(tenant)

    def missed(self) -> None:
        self._counts.missed += 1

    def ended(self, tenant: str, outcome: Outcome) -> None:
        self._counts.ended[named(outcome)] += 1
        self._recorder.request_ended(tenant, outcome)

    def looked_up(self, took_ns: int) -> None:
        self._counts.look_ups.add(took_ns)

    def unavailable(self, kind: str, count: int) -> None:
        self._counts.failures[kind if kind in FAILURES else "failed"] += count
