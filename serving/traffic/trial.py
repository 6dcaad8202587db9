"""The evidence of one step of a release: what the candidate and the stable version did since the step began.

Pure, an immutable value that can be written into the log and read back. Knows no limits: `judge.py` does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from serving.traffic.betting import PARTS
from serving.traffic.evidence import Counted, Reading, Seen, news
from serving.traffic.odds import Odds


@dataclass(frozen=True, slots=True)
class Arm:
    """One version in this step. values: how often clients sent each value back, in hundredths. seen: see `evidence`."""

    counted: Counted = field(default_factory=Counted)
    values: Mapping[int, int] = field(default_factory=dict)
    seen: Seen = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "counted": self.counted.as_json(),
            "values": {str(value): self.values[value] for value in sorted(self.values)},
            "seen": {incarnation: counted.as_json() for incarnation, counted in self.seen.items()},
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Self:
        values = {int(value): count for value, count in document["values"].items()}
        seen = {incarnation: Counted.of_json(counted) for incarnation, counted in document["seen"].items()}
        return cls(Counted.of_json(document["counted"]), values, seen)


@dataclass(frozen=True, slots=True)
class Trial:
    """Both versions in one step, which began at this second of the log's clock.

    errors: the evidence on failures at the same time. before: the stable version's latencies in the step before, for a
    step in which it has no requests any more."""

    began_s: float
    candidate: Arm = field(default_factory=Arm)
    stable: Arm = field(default_factory=Arm)
    errors: Odds = field(default_factory=Odds)
    before: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, now_s: float, previous: "Trial | None" = None) -> "Trial":
        """Returns the trial of a step that begins. previous: the step before of the same release, whose evidence does
        not count any more."""
        if previous is None:
            return cls(now_s)
        latency = previous.stable.counted.latency or previous.before
        return cls(now_s, Arm(seen=previous.candidate.seen), Arm(seen=previous.stable.seen), before=latency)

    def observed(
        self,
        candidate: Sequence[Reading],
        stable: Sequence[Reading],
        now_s: float,
        values: tuple[Iterable[float], Iterable[float]] = ((), ()),
    ) -> "Trial":
        """Returns the trial after reports of both versions' replicas, which were asked at the same time.

        values: what clients sent back for answers of the candidate and of the stable version, from 0 to 1."""
        age_s = now_s - self.began_s
        own, new = _after(self.candidate, candidate, age_s, values[0])
        others, new_of_stable = _after(self.stable, stable, age_s, values[1])
        errors = self.errors.after((new.failed, new.computed), (new_of_stable.failed, new_of_stable.computed))
        return replace(self, candidate=own, stable=others, errors=errors)

    def as_json(self) -> dict[str, Any]:
        return {
            "began_s": self.began_s,
            "candidate": self.candidate.as_json(),
            "stable": self.stable.as_json(),
            "errors": self.errors.as_json(),
            "before": {str(bucket): self.before[bucket] for bucket in sorted(self.before)},
        }

    @classmethod
    def of_json(cls, document: Mapping[str, Any]) -> Self:
        return cls(
            document["began_s"],
            Arm.of_json(document["candidate"]),
            Arm.of_json(document["stable"]),
            Odds.of_json(document["errors"]),
            {int(bucket): number for bucket, number in document["before"].items()},
        )


def _after(arm: Arm, readings: Sequence[Reading], age_s: float, given: Iterable[float]) -> tuple[Arm, Counted]:
    seen, new = news(arm.seen, readings, age_s)
    values = dict(arm.values)
    for value in given:
        part = round(PARTS * value)
        values[part] = values.get(part, 0) + 1
    return Arm(arm.counted.plus(new), values, seen), new
