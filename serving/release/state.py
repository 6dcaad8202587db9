"""Folds the log of a model into its releases, and makes the record of each thing that a release does.

Pure. Nothing about a release is true because a process remembers it: whoever drives one reads this. Records of other
kinds count only where they end a release, as a route that somebody set by hand does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from serving.registry.log import Record, Split
from serving.release.plan import BadPlan, Plan, plan_of

MOST_EVENTS = 400  # of one release that are kept for people; its first ones and its latest
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Kind(StrEnum):
    """The records of a release, by the word in their field `kind`."""

    STARTED = "release_started"
    TESTED = "tested"
    STEP = "step"
    EVIDENCE = "evidence"
    HELD = "held"
    RESUMED = "resumed"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


class Phase(StrEnum):
    """The phase of a release."""

    TESTING = "testing"  # before the first step: no request of a client reaches the candidate
    STEPPING = "stepping"
    HELD = "held"  # the share stays as it is until somebody resumes or aborts
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"
    OVERTAKEN = "overtaken"  # the route was set by hand or by a rollback of the registry


ENDED = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED, Phase.OVERTAKEN})
_ENDS = {
    Kind.PROMOTED: Phase.PROMOTED,
    Kind.ROLLED_BACK: Phase.ROLLED_BACK,
    Kind.ABORTED: Phase.ABORTED,
    "routed": Phase.OVERTAKEN,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One record of a release. number: of the record. share: of the candidate from then on; None: unchanged."""

    number: int
    at_s: float
    kind: str
    by: str
    why: str
    share: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release, as far as its records were read.

    id: names it in its records. last: the number of its latest record. step: the index of the present
    step, -1 before the first. judged_from_s: since when the present step is judged: its start, or the latest resume.
    tests: the outcomes of the tests before the first step, by name. evidence: what the latest record of the present
    step keeps of its counts. why: the latest reason.
    """

    id: str
    last: int
    version: str
    stable: str
    plan: Plan
    by: str
    started_s: float
    phase: Phase = Phase.TESTING
    step: int = -1
    stepped_s: float = 0.0
    judged_from_s: float = 0.0
    ended_s: float | None = None
    why: str = ""
    tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()

    @property
    def is_running(self) -> bool:
        return self.phase not in ENDED

    @property
    def share(self) -> int:
        """The candidate's share of all requests while the release runs, in 1/10000."""
        return self.plan.shares[self.step] if self.is_running and self.step >= 0 else 0

    @property
    def is_last_step(self) -> bool:
        return self.step == len(self.plan.shares) - 1


Releases = tuple[Release, ...]  # the oldest first


def folded(releases: Releases, number: int, record: Record) -> Releases:
    """Returns the releases after this record. number: its number in the log. Unknown kinds change nothing, nor do
    records of a release that has ended."""
    running = releases[-1] if releases and releases[-1].is_running else None
    if record.kind == Kind.STARTED and running is None:
        started = _started(number, record)
        return releases if started is None else (*releases, started)
    if running is None or not _concerns(running, record):
        return releases
    after = _after(running, number, record)
    return releases if after is running else (*releases[:-1], after)


def latest(releases: Releases) -> Release | None:
    return releases[-1] if releases else None


def _started(number: int, record: Record) -> Release | None:
    """Returns the release that begins here; None for a record that names no versions or no plan."""
    id, version, stable = (record.text(name) for name in ("release", "version", "stable"))
    told = record.facts.get("plan")
    if not (id and version and stable) or not isinstance(told, dict):
        return None
    try:
        plan = plan_of(told)
    except BadPlan:
        return None
    at_s = seconds(record)
    release = Release(
        id=id,
        last=number,
        version=version,
        stable=stable,
        plan=plan,
        by=record.by,
        started_s=at_s,
        why=record.why,
    )
    return _noted(release, number, record)


def _concerns(release: Release, record: Record) -> bool:
    """Returns whether the record is one of this release, or ends it by moving its traffic."""
    if record.kind not in tuple(Kind) and record.kind != "routed":
        return False
    return record.kind in _ENDS or record.text("release") == release.id


def _after(release: Release, number: int, record: Record) -> Release:
    kind, at_s, facts = record.kind, seconds(record), record.facts
    after = replace(_noted(release, number, record), last=number, why=record.why or release.why)
    if kind in _ENDS:
        of_another = record.text("release") != release.id  # `headway registry rollback` writes the same kind
        phase = Phase.OVERTAKEN if of_another else _ENDS[kind]
        return replace(after, phase=phase, ended_s=at_s, evidence=facts.get("evidence") or release.evidence)
    if kind == Kind.TESTED:
        return replace(after, tests={**release.tests, record.text("test"): dict(facts.get("outcome") or {})})
    if kind == Kind.STEP:
        step = facts.get("step")
        if type(step) is not int or not release.step < step < len(release.plan.shares):
            return release
        evidence = facts.get("evidence") or _NOTHING
        return replace(after, phase=Phase.STEPPING, step=step, stepped_s=at_s, judged_from_s=at_s, evidence=evidence)
    if kind == Kind.EVIDENCE:
        is_of_step = facts.get("step") == release.step
        return replace(after, evidence=facts.get("evidence") or _NOTHING) if is_of_step else release
    if kind == Kind.HELD:
        return replace(after, phase=Phase.HELD, evidence=facts.get("evidence") or release.evidence)
    phase = Phase.STEPPING if release.step >= 0 else Phase.TESTING  # resumed
    return replace(after, phase=phase, judged_from_s=at_s, evidence=_NOTHING)  # the counts begin anew


def _noted(release: Release, number: int, record: Record) -> Release:
    share = None if record.split is None else record.split.share
    event = Event(number, seconds(record), record.kind, record.by, record.why, share)
    events = (*release.events, event)
    if len(events) > MOST_EVENTS:
        events = (*events[: MOST_EVENTS // 2], *events[-MOST_EVENTS // 2 :])
    return replace(release, events=events)


def seconds(record: Record) -> float:
    """Returns the time of a record in seconds since 1970; 0 if it names none."""
    try:
        return datetime.fromisoformat(record.at).timestamp()
    except ValueError:
        return 0.0


# -- the records that a release writes --------------------------------------------------------------------------------


class Draft(NamedTuple):
    """A record that is to be written. split: the traffic from then on; None: as it was."""

    kind: str
    why: str
    facts: Mapping[str, Any]
    split: Split | None = None


def start(id: str, version: str, stable: str, plan: Plan, why: str) -> Draft:
    """Returns the record that begins a release. id: is that of no other."""
    return Draft(Kind.STARTED, why, {"release": id, "version": version, "stable": stable, "plan": plan.told()})


def tested(release: Release, test: str, outcome: Mapping[str, Any], why: str) -> Draft:
    return _draft(release, Kind.TESTED, why, test=test, outcome=dict(outcome))


def step(release: Release, number: int, evidence: Mapping[str, Any], why: str) -> Draft:
    """Returns the record of the step of this index. evidence: the counts at its start, from which it is judged."""
    share = release.plan.shares[number]
    split = Split(release.stable, release.version, share)
    return _draft(release, Kind.STEP, why, split, step=number, evidence=dict(evidence))


def checkpoint(release: Release, evidence: Mapping[str, Any], why: str) -> Draft:
    return _draft(release, Kind.EVIDENCE, why, step=release.step, evidence=dict(evidence))


def hold(release: Release, why: str, evidence: Mapping[str, Any] | None = None) -> Draft:
    return _draft(release, Kind.HELD, why, evidence=dict(release.evidence if evidence is None else evidence))


def resume(release: Release, why: str) -> Draft:
    return _draft(release, Kind.RESUMED, why)


def promote(release: Release, why: str, evidence: Mapping[str, Any]) -> Draft:
    return _draft(release, Kind.PROMOTED, why, Split(release.version), evidence=dict(evidence))


def roll_back(release: Release, why: str, evidence: Mapping[str, Any] = _NOTHING) -> Draft:
    return _draft(release, Kind.ROLLED_BACK, why, Split(release.stable), evidence=dict(evidence))


def abort(release: Release, why: str) -> Draft:
    return _draft(release, Kind.ABORTED, why, Split(release.stable))


def _draft(release: Release, kind: Kind, why: str, split: Split | None = None, **facts: Any) -> Draft:
    return Draft(kind, why, {"release": release.id, "version": release.version, **facts}, split)
