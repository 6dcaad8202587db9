"""What happened in a stretch of a run, in a form that can be added up, sent between processes and kept in a file."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.arrivals import SECOND_NS
from loadtest.histogram import Histogram
from loadtest.shot import Shot

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(slots=True)
class Tally:
    """`latency` is from the planned instant and of answered shots, `lateness` of all that were sent."""

    planned: int = 0
    sent: int = 0
    answered: int = 0
    in_time: int = 0
    rows: int = 0  # of answered shots
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)

    def add(self, shot: Shot, within_ns: int | None = None) -> None:
        self.planned += 1
        if shot.lateness_ns is not None:
            self.sent += 1
            self.lateness.add(shot.lateness_ns)
        if shot.status is not None:
            self.statuses[str(shot.status)] += 1
        if shot.error is not None:
            self.errors[kind_of(shot.error)] += 1
        if shot.is_answered and shot.from_planned_ns is not None:
            self.answered += 1
            self.rows += shot.rows
            self.in_time += shot.is_in_time(within_ns)
            self.latency.add(shot.from_planned_ns)

    def merge(self, other: "Tally") -> None:
        for name in ("planned", "sent", "answered", "in_time", "rows"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self.latency.merge(other.latency)
        self.lateness.merge(other.lateness)

    def as_json(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("planned", "sent", "answered", "in_time", "rows")}
        return {
            **counts,
            "statuses": dict(sorted(self.statuses.items())),
            "errors": dict(self.errors.most_common()),
            "latency": self.latency.as_json(),
            "lateness": self.lateness.as_json(),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> "Tally":
        histograms = {name: Histogram.from_json(told[name]) for name in ("latency", "lateness")}
        counters = {name: Counter(told[name]) for name in ("statuses", "errors")}
        return cls(**{**told, **counters, **histograms})


def kind_of(error: str) -> str:
    """The same text for errors that differ only in their numbers, so that they can be counted."""
    return _NUMBER.sub("…", error)


def windows(shots: Iterable[Shot], seconds: float = 1.0, within_ns: int | None = None) -> list[Tally]:
    """One tally per stretch of planned time, the empty ones included: a gap is news too."""
    found: list[Tally] = []
    for shot in shots:
        number = int(shot.planned_ns // (seconds * SECOND_NS))
        while len(found) <= number:
            found.append(Tally())
        found[number].add(shot, within_ns)
    return found


def together(tallies: Sequence[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole
