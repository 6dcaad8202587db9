"""Counts of the shots in a part of a run, which can be merged, sent between processes and stored in a file."""

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
    """Counts and histograms of shots. `latency` is from the planned instant, of answered shots; `lateness` is of all
    sent shots."""

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
    def from_json(cls, fields: dict[str, Any]) -> "Tally":
        histograms = {name: Histogram.from_json(fields[name]) for name in ("latency", "lateness")}
        counters = {name: Counter(fields[name]) for name in ("statuses", "errors")}
        return cls(**{**fields, **counters, **histograms})


def kind_of(error: str) -> str:
    """Replaces the numbers in an error text, so that errors that differ only in numbers are counted together."""
    return _NUMBER.sub("…", error)


def windows(shots: Iterable[Shot], seconds: float = 1.0, within_ns: int | None = None) -> list[Tally]:
    """Returns one tally per window of planned time, including empty windows, which show gaps."""
    tallies: list[Tally] = []
    for shot in shots:
        number = int(shot.planned_ns // (seconds * SECOND_NS))
        while len(tallies) <= number:
            tallies.append(Tally())
        tallies[number].add(shot, within_ns)
    return tallies


def together(tallies: Sequence[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole
