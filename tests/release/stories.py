"""A release for tests: a log in memory, and a driver on fakes, which may be killed and made anew."""

import asyncio
import json
from dataclasses import dataclass, field

from serving.registry.log import ModelLog
from serving.release import state
from serving.release.log import ReleaseLog
from serving.release.plan import Plan
from serving.release.rollout import Rollout
from serving.release.state import Draft, Release, Releases, latest
from serving.testing.clock import ManualClock
from serving.testing.objects import MemoryObjects
from serving.testing.releasing import FakeJudge, FakeTrials, FakeVersions, Faults

NOW_S = 1_790_000_000
S = 1_000_000_000
PLAN = Plan(soak_s=5.0, deadline_s=600.0, requests=10)


@dataclass
class Story:
    """The model `ranker`, whose version 1 is stable. configured: the versions of its settings."""

    plan: Plan = PLAN
    faults: Faults = field(default_factory=Faults)
    store: MemoryObjects = field(default_factory=MemoryObjects)
    configured: tuple[str, ...] = ("1", "2", "3")

    def __post_init__(self) -> None:
        self.clock = ManualClock(NOW_S * S)
        self.versions = FakeVersions("1", faults=self.faults)
        self.trials = FakeTrials(faults=self.faults)
        self.judge = FakeJudge(faults=self.faults)
        self.driver = self.made()

    def log(self, model: str = "ranker") -> ReleaseLog:
        return ReleaseLog(ModelLog(self.store, model), self.configured, needed=1, calendar=self.clock)

    def made(self, log: ReleaseLog | None = None) -> Rollout:
        """Returns a driver that knows nothing yet, as after a restart. log: as far as it was read."""
        return Rollout(log or self.log(), self.versions, self.trials, self.judge, calendar=self.clock, by="the server")

    async def write(self, record: Draft, by: str = "ann") -> None:
        def decide(releases: Releases) -> Draft:
            return record

        await self.log().append(decide, by)

    async def start(self, version: str = "2", id: str = "r1") -> None:
        await self.write(state.start(id, version, "1", self.plan, "a better model"))

    async def release(self) -> Release:
        log = self.log()
        await log.read_new()
        found = latest(log.releases)
        assert found is not None
        return found

    async def routes(self) -> list[tuple[str, str | None, int]]:
        """Returns all routes of the log, in their order."""
        records = [json.loads(self.store.objects[path]) for path in sorted(self.store.objects)]
        told = [record["route"] for record in records if "route" in record]
        return [(route["stable"], route["candidate"], route["share"]) for route in told]

    async def turns(self, count: int = 60, *, kill: bool = False) -> None:
        """Lets the driver have its turns, a second apart. kill: makes it anew before each."""
        for _ in range(count):
            if kill:
                self.driver = self.made()
            await self.driver.turn()
            self.clock.advance(S)


def told(story: Story) -> Release:
    return asyncio.run(story.release())
