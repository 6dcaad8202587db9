"""Tests what a replica reports for the judge of a release, and how the front collects it; without a Ray."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from serving.api.feedback import FeedbackBox
from serving.cluster.front.collector import Replies
from serving.cluster.front.evidence import EvidenceSource
from serving.cluster.replica.evidence import Evidence, counted
from serving.core.errors import FeaturesUnavailable, InvalidInput, LaneLost, ModelError
from serving.core.octaves import bucket_of
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Reason, Rejected, Timings
from serving.core.request import Request
from serving.core.witness import Exchange, Witness
from serving.telemetry.cache import CacheRecorder
from serving.telemetry.recorder import Recorder
from serving.testing.clock import ManualClock
from serving.traffic.evidence import Counted
from serving.traffic.trial import Trial

MS = 1_000_000
TIMINGS = Timings(0, 20 * MS, 0, 1)
BUCKET = bucket_of(20 * MS)


class Replica:
    """The parts of a replica that report."""

    def __init__(self, name: str = "a") -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.box = FeedbackBox()
        self.witnesses: list[Witness] = []
        self.cache = CacheRecorder(self.recorder, lambda: 0.0)
        self.evidence = Evidence(
            self.recorder,
            replica=name,
            box=self.box,
            witnesses=self.witnesses,
            read_cache=lambda: self.cache.counts(0, 0),
            now_ns=self.clock.now_ns,
        )

    def answer(self, id: str = "", tenant: str = "acme") -> None:
        request = Request(
            id=1, tenant=tenant, rows=1, length=1, group=None, arrived_ns=0, deadline_ns=MS, expires_ns=MS, rank_ns=0,
            payload=None,
        )  # fmt: skip
        self.recorder.requests_completed([request], [0], TIMINGS)
        for witness in self.witnesses:
            witness.answered(Exchange("http", id, tenant, 200, Completed({}, 0, TIMINGS), "", 0, 0, 0))

    def fail(self) -> None:
        self.recorder.request_ended("acme", Failed(ModelError("no")))


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_ends_of_requests_are_counted_by_who_is_to_blame() -> None:
    recorder = Recorder()
    for outcome in (
        Failed(ModelError("x")),
        Failed(LaneLost("x")),
        Failed(InvalidInput("x")),
        Failed(FeaturesUnavailable("x")),
        Rejected(Reason.TOO_LARGE, 0),
        Rejected(Reason.QUEUE_FULL, 0),
        Rejected(Reason.DEADLINE_HOPELESS, 0),
        Expired(1),
        Cancelled(),
    ):
        recorder.request_ended("", outcome)
    counts = counted(7, recorder.counts().ended, {BUCKET: 7}, cached=3)
    assert counts == Counted(7, failed=2, invalid=2, cancelled=1, refused=4, cached=3, latency={BUCKET: 7})


def test_a_replica_reports_what_it_counted_since_it_started_and_latencies_since_it_was_asked() -> None:
    async def story() -> None:
        replica = Replica()
        replica.answer()
        replica.fail()
        replica.clock.advance(5_000_000_000)
        first = replica.evidence.report().reading
        assert first.counted == Counted(1, 1)
        assert first.uptime_s == pytest.approx(5)
        replica.answer()
        second = replica.evidence.report().reading
        assert second.counted == Counted(2, 1, latency={BUCKET: 1})
        assert second.incarnation == first.incarnation
        replica.evidence.end()

    run(story)


def test_nothing_is_counted_or_remembered_while_nobody_asks() -> None:
    async def story() -> None:
        replica = Replica()
        assert replica.witnesses == []
        assert replica.recorder.latency is None
        first = replica.evidence.report().reading
        assert len(replica.witnesses) == 1
        replica.evidence.end()
        assert replica.witnesses == []
        assert replica.recorder.latency is None
        replica.answer()
        replica.clock.advance(1_000_000_000)
        again = replica.evidence.report().reading
        assert again.counted == Counted()  # as a replica that begins
        assert again.uptime_s == 0
        assert again.incarnation != first.incarnation
        replica.evidence.end()

    run(story)


def test_hits_of_the_cache_and_waiters_of_a_flight_are_no_evidence() -> None:
    async def story() -> None:
        replica = Replica()
        replica.fail()  # computed
        for _ in range(3):  # waited for it
            replica.cache.ended("acme", Failed(ModelError("no")))
        replica.cache.answered("acme", "memory", 1)
        assert replica.evidence.report().reading.counted == Counted(failed=1, cached=1)
        replica.evidence.end()

    run(story)


class Cluster:
    """Two applications of one replica each. silent: those that do not answer in time."""

    def __init__(self) -> None:
        self.of = {"new": Replica("new"), "old": Replica("old")}
        self.silent: set[str] = set()

    async def ask(self, method: str, *arguments: Any, of: Sequence[str]) -> dict[str, Replies]:
        assert method == "evidence"
        return {
            name: Replies(silent=1) if name in self.silent else Replies([self.of[name].evidence.report(*arguments)])
            for name in of
        }

    def end(self) -> None:
        for replica in self.of.values():
            replica.evidence.end()


def test_values_that_one_replica_receives_count_for_the_version_that_answered() -> None:
    async def story() -> None:
        cluster = Cluster()
        source = EvidenceSource(cluster.ask)
        await source.collect("new", "old")
        cluster.of["new"].answer("a")
        cluster.of["old"].answer("b")
        sent = (
            ("acme", b'{"id": "a", "value": 0.5}'),
            ("acme", b'{"id": "b", "value": 1}'),
            ("globex", b'{"id": "a", "value": 0}'),
        )
        for tenant, body in sent:  # the last is of a tenant that did not ask
            cluster.of["old"].box.put(tenant, body)
        assert (await source.collect("new", "old")).values == ([], [])
        collected = await source.collect("new", "old")
        assert collected.values == ([0.5], [1.0])
        cluster.of["new"].box.put("acme", b'{"id": "a", "value": 1}')  # a second time
        for _ in range(4):
            assert (await source.collect("new", "old")).values == ([], [])
        cluster.end()

    run(story)


def test_the_reports_of_both_versions_make_a_trial() -> None:
    async def story() -> None:
        cluster = Cluster()
        source = EvidenceSource(cluster.ask)
        trial = Trial.begin(100.0)
        for replica in cluster.of.values():
            replica.clock.advance(50_000_000_000)
        for second in range(1, 4):
            cluster.silent = {"new"} if second == 2 else set()
            cluster.of["new"].fail()
            cluster.of["old"].answer()
            collected = await source.collect("new", "old")
            assert collected.silent == len(cluster.silent)
            trial = trial.observed(collected.candidate, collected.stable, 100.0 + second, collected.values)
        assert trial.candidate.counted == Counted(failed=2)  # the first report only says from where to count
        assert trial.stable.counted.answered == 2
        cluster.end()

    run(story)
