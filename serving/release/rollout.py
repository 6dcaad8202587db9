"""Drives the releases of one model: reads the log, does what `deciding.py` says, and adds to the log what was done.

It remembers nothing that the log does not say, so another process, or this one after a restart, goes on in the middle.
Two that drive at once do no harm: a record is decided about the log as it then is, and one of two writers is too late.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from serving.core.clock import Clock
from serving.registry.log import Split
from serving.release import state
from serving.release.deciding import (
    DRAIN_S,
    Action,
    Begin,
    Deploy,
    Facts,
    Standing,
    Try,
    Verdict,
    Write,
    next_action,
    wanted,
)
from serving.release.state import Draft, Release, Releases, latest
from serving.store.log import Busy, RecordsUnreadable, RecordTooLarge
from serving.store.objects import StoreUnreachable

logger = logging.getLogger("ray.serve")
BUSY_S, ENDED_S, AGAIN_S = 1.0, 2.0, 5.0  # until the next turn: while one runs, after one ended, after a failure
IDLE_S = 60.0  # without a release; whoever begins one ends the pause


class Overtaken(Exception):
    """The log has changed since the decision was made; it is to be made again."""


class ModelLog(Protocol):
    """The log of one model. All methods raise StoreUnreachable."""

    @property
    def releases(self) -> Releases: ...

    async def read_new(self) -> bool: ...

    def objection(self, version: str) -> str:
        """Returns why the version may not be released, "" if it may."""
        ...

    def route(self) -> Split: ...

    async def append(self, decide: Callable[[Releases], Draft], by: str) -> None:
        """Adds the record that `decide` makes of the releases as they then are, with the time and `by`."""
        ...


class Versions(Protocol):
    """The versions of the model that Ray Serve runs."""

    async def standing(self, version: str) -> tuple[Standing, str]: ...

    async def deploy(self, version: str) -> None:
        """Begins to deploy the version. Raises Undeployable if it cannot be."""
        ...

    async def keep_only(self, versions: Collection[str]) -> None:
        """Removes all versions that were deployed for a release, but these."""
        ...


class Undeployable(Exception):
    """The version cannot be deployed, and trying again would not help. The text says why."""


class Trials(Protocol):
    """Tests of a candidate before its first request."""

    async def made(self, test: str, release: Release) -> tuple[Mapping[str, Any], str]:
        """Returns the outcome, with `passed`, and a sentence."""
        ...


class Evidence(Protocol):
    """The counts of both versions, and the judge."""

    async def begun(self, release: Release, step: int) -> Mapping[str, Any] | None:
        """Returns the counts as they are now, from which the step of this index is judged. None: not all are known."""
        ...

    async def judged(self, release: Release, now_s: float) -> Verdict | None:
        """Returns the verdict on the present step, None if nobody could be asked."""
        ...


class Rollout:
    """The releases of one model. now: returns seconds since 1970."""

    def __init__(
        self, log: ModelLog, versions: Versions, trials: Trials, evidence: Evidence, *, calendar: Clock, by: str
    ) -> None:
        self.log = log
        self._versions = versions
        self._trials = trials
        self._evidence = evidence
        self._calendar = calendar
        self._by = by
        self.verdict: Verdict | None = None  # the latest, for those who look

    async def turn(self) -> float:
        """Does the next thing, if there is one. Returns the seconds after which to look again. Raises nothing that a
        store or Ray may raise: what failed is done again."""
        try:
            await self.log.read_new()
            return await self._act()
        except Overtaken:
            return 0.0
        except (StoreUnreachable, RecordsUnreadable, RecordTooLarge, Busy) as error:
            logger.warning("the release holds where it is, since its log cannot be read or written: %s", error)
        except Exception:
            logger.exception("the release could not go on; it tries again")
        return AGAIN_S

    async def _act(self) -> float:
        release = latest(self.log.releases)
        if release is None or not release.is_running:
            self.verdict = None
            await self._restore(self.log.route().stable)
            await self._versions.keep_only(wanted(self.log.releases, self.log.route(), self._now_s()))
            is_over = release is None or self._now_s() - (release.ended_s or 0.0) > 2 * DRAIN_S
            return IDLE_S if is_over else ENDED_S
        action = next_action(release, await self._facts(release), self._now_s())
        return await self._do(release, action)

    async def _restore(self, stable: str) -> None:
        """Deploys the stable version if it is not there: the server was started again with older settings, say."""
        if not self.log.releases:
            return
        standing, why = await self._versions.standing(stable)
        if standing is Standing.FAILED:
            logger.error("v%s is stable by the log, and cannot be served: %s", stable, why)
        if standing is Standing.ABSENT:
            try:
                await self._versions.deploy(stable)
            except Undeployable as error:
                logger.error("v%s is stable by the log, and cannot be served: %s", stable, error)

    async def _facts(self, release: Release) -> Facts:
        standing, why = await self._versions.standing(release.version)
        self.verdict = await self._evidence.judged(release, self._now_s()) if release.step >= 0 else None
        return Facts(standing=standing, why=why, objection=self.log.objection(release.version), verdict=self.verdict)

    async def _do(self, release: Release, action: Action) -> float:
        match action:
            case Deploy():
                try:
                    await self._versions.deploy(release.version)
                except Undeployable as error:
                    await self._write(release, state.roll_back(release, f"it cannot be deployed: {error}"))
            case Try(test):
                outcome, why = await self._trials.made(test, release)
                await self._write(release, state.tested(release, test, outcome, why))
            case Begin(step, why):
                counts = await self._evidence.begun(release, step)
                if counts is None:
                    return BUSY_S  # without the counts at its start, a step could not be judged
                await self._write(release, state.step(release, step, counts, why))
            case Write(record):
                await self._write(release, record)
            case _:
                return BUSY_S
        return 0.0

    async def _write(self, release: Release, record: Draft) -> None:
        """Adds the record, unless the release has changed since it was decided. Raises Overtaken then."""

        def decide(releases: Releases) -> Draft:
            now = latest(releases)
            if now is None or (now.id, now.last) != (release.id, release.last):
                raise Overtaken
            return record

        await self.log.append(decide, self._by)

    def _now_s(self) -> float:
        return self._calendar.now_ns() / 1e9
