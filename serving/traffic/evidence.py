"""The counts that replicas report of their requests while a release runs, and their sum, each request counted once.

Pure. Replicas report what they have counted since they started. Replicas come and go, reports are lost or late, and the
front that adds them up may start again from what it wrote down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

KEEP = 256  # incarnations that report no more; one that is forgotten and comes back counts from then on
NUMBERS = ("answered", "failed", "invalid", "cancelled", "refused", "cached")


@dataclass(frozen=True, slots=True)
class Counted:
    """Numbers of requests. Only those answered and failed were computed, and only these are judged.

    failed: by the model or its device (a status of 500 or more). invalid: for the client's input. cancelled: by the
    client. refused: by the queue, on arrival or at the deadline, or for want of features. cached: answered from the
    answer to an equal request.
    latency: answered requests by bucket of `core.octaves`, from arrival to answer.
    """

    answered: int = 0
    failed: int = 0
    invalid: int = 0
    cancelled: int = 0
    refused: int = 0
    cached: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    @property
    def computed(self) -> int:
        return self.answered + self.failed

    def plus(self, other: "Counted", times: int = 1) -> "Counted":
        """Returns the sum with another's numbers, or with `times` -1 the difference."""
        latency = dict(self.latency)
        for bucket, number in other.latency.items():
            latency[bucket] = latency.get(bucket, 0) + times * number
        numbers = {name: getattr(self, name) + times * getattr(other, name) for name in NUMBERS}
        return Counted(**numbers, latency={bucket: number for bucket, number in latency.items() if number})

    def covers(self, other: "Counted") -> bool:
        """Returns whether no number is smaller than the other's, as in a later report of one process."""
        return all(getattr(self, name) >= getattr(other, name) for name in NUMBERS) and all(
            self.latency.get(bucket, 0) >= number for bucket, number in other.latency.items()
        )

    def as_json(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in NUMBERS if getattr(self, name)}
        return numbers | (
            {"latency": {str(key): self.latency[key] for key in sorted(self.latency)}} if self.latency else {}
        )

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Self:
        latency = {int(bucket): number for bucket, number in document.get("latency", {}).items()}
        return cls(**{name: document[name] for name in NUMBERS if name in document}, latency=latency)


@dataclass(frozen=True, slots=True)
class Reading:
    """The counts of one replica since it started.

    incarnation: of its process; no other process has it. uptime_s: since it began to count."""

    incarnation: str
    uptime_s: float
    counted: Counted


Seen = Mapping[str, Counted]  # the latest report of each incarnation


def news(seen: Seen, readings: Iterable[Reading], age_s: float) -> tuple[dict[str, Counted], Counted]:
    """Returns what is seen then, and what is new in these readings of one version.

    age_s: since when the requests count. An incarnation that was not seen before and is younger has everything to tell
    that counts. The first report of an older one only says from where to count. A report that is older than the one
    before says nothing."""
    others, reported, new = dict(seen), dict[str, Counted](), Counted()
    for reading in readings:
        before = reported.get(reading.incarnation) or others.pop(reading.incarnation, None)
        latest = reading.counted
        if before is None:
            new = new.plus(latest) if reading.uptime_s < age_s else new
        elif latest.covers(before):
            new = new.plus(latest.plus(before, -1))
        else:
            latest = before
        reported[reading.incarnation] = latest
    return dict(list(others.items())[-KEEP:]) | reported, new
