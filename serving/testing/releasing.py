"""Fakes of what a release acts on: versions, trials and a judge that a test scripts. Any call may be made to fail."""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from serving.release.deciding import Decision, Standing, Verdict
from serving.release.state import Release


class Failing(Exception):
    """The failure that a test asked for."""


class Faults:
    """Counts calls of several fakes together, and raises at one of them. at: its number, from 0; -1 for none.

    after: whether the call has its effect before it fails."""

    def __init__(self, at: int = -1, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.calls = 0

    def enter(self) -> bool:
        """Counts a call. Returns whether it is to fail at its end; raises Failing if at its beginning."""
        number, self.calls = self.calls, self.calls + 1
        if number == self.at and not self.after:
            raise Failing(f"call {number}")
        return number == self.at

    @staticmethod
    def leave(fails: bool) -> None:
        if fails:
            raise Failing("after the call")


class FakeVersions:
    """Versions that are ready after they were asked for `loading` times. failing: by version, why it does not start."""

    def __init__(self, *running: str, faults: Faults | None = None, loading: int = 1) -> None:
        self.running = set(running)
        self.failing: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.deployed: list[str] = []
        self._faults = faults or Faults()
        self._loading = loading

    async def standing(self, version: str) -> tuple[Standing, str]:
        fails = self._faults.enter()
        self._faults.leave(fails)
        if version in self.failing:
            return Standing.FAILED, self.failing[version]
        if version not in self.running:
            return Standing.ABSENT, ""
        self.asked[version] += 1
        return (Standing.READY if self.asked[version] > self._loading else Standing.LOADING), ""

    async def deploy(self, version: str) -> None:
        fails = self._faults.enter()
        self.running.add(version)
        self.deployed.append(version)
        self._faults.leave(fails)

    async def keep_only(self, versions: Collection[str]) -> None:
        fails = self._faults.enter()
        self.running &= set(versions)
        self._faults.leave(fails)


class FakeTrials:
    """Trials that pass, but for those in `failing`: why, by test."""

    def __init__(self, *, faults: Faults | None = None) -> None:
        self.failing: dict[str, str] = {}
        self.made_of: list[str] = []
        self._faults = faults or Faults()

    async def made(self, test: str, release: Release) -> tuple[Mapping[str, Any], str]:
        fails = self._faults.enter()
        self.made_of.append(test)
        self._faults.leave(fails)
        why = self.failing.get(test, "")
        return {"passed": not why, "why": why}, why or "all is well"


class FakeJudge:
    """A judge that waits once in every step and then says what `verdicts` holds for the step; without that, to go on.

    It counts its looks at a step from what the log keeps of it, as the real one does, and remembers nothing else.
    """

    def __init__(self, *, faults: Faults | None = None, silent: bool = False) -> None:
        self.verdicts: dict[int, Decision] = {}
        self.cleared: list[int] = []  # the steps that it let go on
        self.silent = silent
        self._faults = faults or Faults()
        self._looks: Counter[int] = Counter()

    async def begun(self, release: Release, step: int) -> Mapping[str, Any] | None:
        fails = self._faults.enter()
        self._faults.leave(fails)
        self._looks[step] = 0
        return {"step": step, "answered": 0}

    async def judged(self, release: Release, now_s: float) -> Verdict | None:
        fails = self._faults.enter()
        self._faults.leave(fails)
        if self.silent:
            return None
        step = release.evidence.get("step", release.step)  # a resumed step begins anew
        assert step == release.step, "judged by the counts of another step"
        self._looks[release.step] += 1
        told = {"step": release.step, "answered": 100 * self._looks[release.step]}
        if self._looks[release.step] < 2:
            return Verdict(Decision.WAIT, "too few requests yet", told)
        decision = self.verdicts.get(release.step, Decision.GO_ON)
        if decision is Decision.GO_ON:
            self.cleared.append(release.step)
        return Verdict(decision, f"step {release.step} says {decision}", told)
