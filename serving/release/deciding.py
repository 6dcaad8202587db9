"""Decides what a release does next: a pure function of its log, of what is known of the candidate, and of the time.

Knows nothing of how requests are judged, only of the verdict. Whoever acts (`rollout.py`) asks again after each action,
so an action that failed, or was done twice, does no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from serving.registry.log import Split
from serving.release import state
from serving.release.state import Draft, Phase, Release, Releases
from serving.traffic.routes import percent

CHECKPOINT_S = 30.0  # between two records of the counts of a step
LONG_S, SELDOM_S = 600.0, 600.0  # after this long in a step, and while it is held, the counts are written this often
DRAIN_S = 10.0  # how long a version that no route names any more stays: load balancers and requests in flight
SMOKE, SHADOW = "smoke", "shadow"


class Standing(StrEnum):
    """The standing of a version with Ray Serve."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody could be asked


class Decision(StrEnum):
    """The word of the judge on a step."""

    GO_ON = "go on"
    WAIT = "wait"
    HOLD = "hold"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judge's verdict on the present step. why: sentences with numbers. told: the counts and the evidence as JSON,
    for the log and the page; the judge goes on from it."""

    decision: Decision
    why: str
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that are not in the log.

    why: of the standing. objection: why the version may not be released, "" if it may. verdict: None if there are no
    counts to judge."""

    standing: Standing = Standing.UNKNOWN
    why: str = ""
    objection: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """The action of doing nothing now."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """The start of the candidate, for which nobody waits."""


@dataclass(frozen=True, slots=True)
class Try:
    """A test of the candidate, of which no client sees anything."""

    test: str


@dataclass(frozen=True, slots=True)
class Begin:
    """The beginning of the step of this index, with the counts as they are then."""

    step: int
    why: str


@dataclass(frozen=True, slots=True)
class Write:
    """The addition of this record to the log."""

    record: Draft


Action = Rest | Deploy | Try | Begin | Write


def next_action(release: Release | None, facts: Facts, now_s: float) -> Action:
    """Returns what is to be done now. Silence never promotes and never rolls back."""
    if release is None or not release.is_running:
        return Rest()
    told = facts.verdict.told if facts.verdict else release.evidence
    if why := _must_end(release, facts):
        return Write(state.roll_back(release, why, told))
    if release.phase is Phase.HELD:
        return _checkpoint(release, facts, now_s)
    if facts.standing is Standing.ABSENT:
        return Deploy()
    late = now_s - release.judged_from_s > release.plan.deadline_s
    if release.phase is Phase.TESTING:
        return _test(release, facts, now_s)
    verdict = facts.verdict
    if verdict and verdict.decision is Decision.GO_ON and now_s - release.stepped_s >= release.plan.soak_s:
        if release.is_last_step:
            return Write(state.promote(release, verdict.why, told))
        return Begin(release.step + 1, verdict.why)
    if verdict and verdict.decision is Decision.HOLD:
        return Write(state.hold(release, verdict.why, told))
    if late:
        return Write(state.hold(release, _undecided(release, facts), told))
    return _checkpoint(release, facts, now_s)


def wanted(releases: Releases, route: Split, now_s: float) -> frozenset[str]:
    """Returns the versions that have to run: what the route names, the candidate of a running release, and, for a
    rollback without a wait, the version that was stable before the latest release, until the next one begins."""
    found = {route.stable, *([route.candidate] if route.candidate else [])}
    last = state.latest(releases)
    if last is not None:
        if last.is_running:
            found |= {last.version, last.stable}
        elif last.phase is Phase.PROMOTED:
            found.add(last.stable)
        if last.ended_s is not None and now_s - last.ended_s < DRAIN_S:
            found |= {last.version, last.stable}
    return frozenset(found)


def _must_end(release: Release, facts: Facts) -> str:
    """Returns why the release is to be rolled back whatever else is the case, "" if it is not."""
    if facts.objection:
        return f"it may not be released any more: {facts.objection}"
    if facts.standing is Standing.FAILED:
        return f"v{release.version} has no replica that answers: {facts.why or 'Ray Serve does not say why'}"
    if facts.verdict and facts.verdict.decision is Decision.ROLL_BACK:
        return facts.verdict.why
    return ""


def _test(release: Release, facts: Facts, now_s: float) -> Action:
    """Returns what is to be done before the first step: wait until the candidate is ready, then test it."""
    for test in (SMOKE, SHADOW):
        outcome = release.tests.get(test)
        if outcome is not None and not outcome.get("passed"):
            return Write(state.roll_back(release, f"the {test} test failed: {outcome.get('why', '')}"))
    if facts.standing is not Standing.READY:
        since_s = max(release.started_s, release.judged_from_s)
        if now_s - since_s > release.plan.deadline_s:
            return Write(state.hold(release, f"v{release.version} is not ready after {now_s - since_s:.0f} s"))
        return Rest()
    if release.plan.smoke and SMOKE not in release.tests:
        return Try(SMOKE)
    if release.plan.shadow and SHADOW not in release.tests:
        return Try(SHADOW)
    return Begin(0, "")


def _checkpoint(release: Release, facts: Facts, now_s: float) -> Action:
    """Returns the record of the counts, if it is time for one and they have changed."""
    if facts.verdict is None or release.step < 0 or facts.verdict.told == release.evidence:
        return Rest()
    written_s = max((event.at_s for event in release.events[-8:]), default=0.0)
    is_long = release.phase is Phase.HELD or now_s - release.judged_from_s > LONG_S
    if now_s - written_s < (SELDOM_S if is_long else CHECKPOINT_S):
        return Rest()
    return Write(state.checkpoint(release, facts.verdict.told, facts.verdict.why))


def _undecided(release: Release, facts: Facts) -> str:
    share = percent(release.share)
    known = f": {facts.verdict.why}" if facts.verdict else ": no replica has reported any counts"
    return f"the step of {share} is not decided after {release.plan.deadline_s:.0f} s{known}"
