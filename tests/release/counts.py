"""Replicas that count what a test lets them answer, and a release that the real judge judges by them."""

import random
from dataclasses import dataclass, field

from serving.core.octaves import bucket_of
from serving.release.judging import Judging, Readings
from serving.release.log import ReleaseLog
from serving.release.rollout import Rollout
from serving.release.state import Phase, Release
from serving.traffic.evidence import Counted, Reading
from serving.traffic.routes import SHARES
from tests.release.stories import S, Story


@dataclass
class Replica:
    """One replica of a version. error: the part of its requests that fails; ms: the median time of the others."""

    name: str
    error: float = 0.0
    ms: float = 10.0
    counted: Counted = field(default_factory=Counted)
    uptime_s: float = 1000.0

    def answer(self, requests: int, drawn: random.Random) -> None:
        failed = sum(drawn.random() < self.error for _ in range(requests))
        latency: dict[int, int] = {}
        for _ in range(requests - failed):
            bucket = bucket_of(self.ms * 1e6 * drawn.lognormvariate(0, 0.3))
            latency[bucket] = latency.get(bucket, 0) + 1
        self.counted = self.counted.plus(Counted(answered=requests - failed, failed=failed, latency=latency))

    def reading(self) -> Reading:
        return Reading(self.name, self.uptime_s, self.counted)


class Traffic:
    """Requests to both versions by the share that the log says: `per_look` for each look of the judge."""

    def __init__(self, *, per_look: int = 200, seed: int = 7, **candidate: float) -> None:
        self.stable = Replica("stable", error=0.01)
        self.candidate = Replica("candidate", **candidate)  # type: ignore[arg-type]
        self.share = 0.0
        self._per_look = per_look
        self._drawn = random.Random(seed)

    async def collect(self, candidate: str, stable: str) -> Readings:
        of_candidate = round(self._per_look * self.share)
        self.candidate.answer(of_candidate, self._drawn)
        self.stable.answer(self._per_look - of_candidate, self._drawn)
        return Readings([self.candidate.reading()], [self.stable.reading()])


class Judged(Story):
    """A story whose judge is the real one, over this traffic. Every turn takes a second."""

    def with_traffic(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.driver = self.made()

    def made(self, log: ReleaseLog | None = None) -> Rollout:
        if not hasattr(self, "traffic"):
            return super().made(log)
        judge = Judging(self.traffic.collect, lambda: self.clock.now_ns() / S)
        return Rollout(log or self.log(), self.versions, self.trials, judge, calendar=self.clock, by="the server")

    async def ended(self, *, restart_every: int = 0, most: int = 900) -> Release:
        """Drives until the release ends or is held. restart_every: seconds between two restarts of the front."""
        await self.start()
        for number in range(most):
            if restart_every and number % restart_every == 0:
                self.driver = self.made()
            await self.driver.turn()
            log = self.driver.log
            self.traffic.share = log.route().share / SHARES
            self.clock.advance(S)
            if log.releases and (not log.releases[-1].is_running or log.releases[-1].phase is Phase.HELD):
                break
        return await self.release()
