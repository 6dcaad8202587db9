"""Judges the steps of releases by the counts of both versions: implements `rollout.Evidence`.

What it remembers between two looks is only what the log would give it again: the counts of a step are begun in the
record of the step, kept in its checkpoints, and replicas report everything that they have counted since they started.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from serving.release.deciding import Decision, Verdict
from serving.release.plan import Plan
from serving.release.state import Release
from serving.traffic.evidence import Reading
from serving.traffic.judge import Judgement, judge
from serving.traffic.judge import Verdict as Word
from serving.traffic.limits import Limits
from serving.traffic.routes import SHARES
from serving.traffic.trial import Trial

_DECISIONS = {
    Word.CONTINUE: Decision.WAIT,
    Word.PROMOTE: Decision.GO_ON,
    Word.ROLL_BACK: Decision.ROLL_BACK,
    Word.HOLD: Decision.HOLD,
}


class Readings(NamedTuple):
    """The reports of all replicas of both versions, asked at once. values: what clients sent back, by version."""

    candidate: Sequence[Reading] = ()
    stable: Sequence[Reading] = ()
    values: tuple[Sequence[float], Sequence[float]] = ((), ())


Collect = Callable[[str, str], Awaitable[Readings]]  # the versions candidate and stable -> their reports


class Judging:
    """The judge of one model's releases. now: returns seconds since 1970."""

    def __init__(self, collect: Collect, now: Callable[[], float]) -> None:
        self._collect = collect
        self._now = now
        self._of: tuple[str, int, float] | None = None  # the release, the step, and since when it is judged
        self._trial = Trial.begin(0.0)

    async def begun(self, release: Release, step: int) -> Mapping[str, Any]:
        readings = await self._collect(release.version, release.stable)
        now_s = self._now()
        trial = Trial.begin(now_s, self._latest(release) if release.step >= 0 else None)
        return {"trial": trial.observed(readings.candidate, readings.stable, now_s).as_json()}

    async def judged(self, release: Release, now_s: float) -> Verdict:
        alone = release.share == SHARES
        readings = await self._collect(release.version, release.stable)
        trial = self._latest(release).observed(readings.candidate, readings.stable, now_s, readings.values)
        self._of, self._trial = _name(release), trial
        plan = release.plan
        said = judge(trial, limits_of(plan), step=release.step, steps=len(plan.shares), now_s=now_s, alone=alone)
        return verdict_of(said, trial)

    def _latest(self, release: Release) -> Trial:
        """Returns the counts of the present step as they were at the latest look; after a restart, at the latest
        record; after a resume, none."""
        if self._of == _name(release):
            return self._trial
        told = release.evidence.get("trial")
        return Trial.of_json(told) if told else Trial.begin(release.judged_from_s)


def _name(release: Release) -> tuple[str, int, float]:
    return release.id, release.step, release.judged_from_s


def limits_of(plan: Plan) -> Limits:
    return Limits(
        errors=plan.errors,
        latency_factor=plan.slower,
        value_margin=plan.business,
        minimum_requests=plan.requests,
        soak_s=plan.soak_s,
        deadline_s=plan.deadline_s,
    )


def verdict_of(said: Judgement, trial: Trial) -> Verdict:
    told = {"trial": trial.as_json(), "judgement": said.as_json()}
    return Verdict(_DECISIONS[said.verdict], " ".join(said.reasons), told)
