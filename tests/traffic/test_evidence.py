"""Tests that every request counts once, whatever replicas, reports and the front do."""

import json
import random
from dataclasses import dataclass, field

import pytest

from serving.traffic.evidence import KEEP, Counted, Reading, news
from serving.traffic.trial import Trial

BEGAN_S = 1000.0


def reading(name: str, failed: int, uptime_s: float = 1e6) -> Reading:
    return Reading(name, uptime_s, Counted(answered=10 * failed, failed=failed, latency={90: 10 * failed}))


def test_the_first_report_of_a_replica_that_was_there_before_counts_nothing() -> None:
    seen, new = news({}, [reading("a", 5)], age_s=10)
    assert new == Counted()
    assert news(seen, [reading("a", 7)], age_s=11)[1] == reading("a", 2).counted


def test_all_counts_of_a_replica_that_started_later() -> None:
    assert news({}, [reading("a", 5, uptime_s=3)], age_s=10)[1] == reading("a", 5).counted


def test_an_older_report_that_comes_later_counts_nothing() -> None:
    seen, _ = news({}, [reading("a", 5)], age_s=10)
    seen, _ = news(seen, [reading("a", 9)], age_s=11)
    seen, new = news(seen, [reading("a", 7)], age_s=12)
    assert new == Counted()
    assert news(seen, [reading("a", 9)], age_s=12)[1] == Counted()


def test_incarnations_that_report_no_more_are_forgotten_after_many_others() -> None:
    seen, _ = news({}, [reading(f"r{number}", 1) for number in range(2 * KEEP)], age_s=10)
    seen, _ = news(seen, [reading("new", 1)], age_s=10)
    assert len(seen) == KEEP + 1


@dataclass
class Replica:
    """A replica that answers requests. told: what it had counted when it was last asked."""

    name: str
    began_s: float
    counted: Counted = field(default_factory=Counted)
    told: Counted = field(default_factory=Counted)


class Fleet:
    """The replicas of a version that come and go. lost: requests of replicas that ended before they were asked again.
    before: requests before the trial began."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name, self.chance, self.number = name, chance, 0
        self.replicas = [self.another(0.0) for _ in range(3)]
        self.lost = Counted()
        self.ended = Counted()

    def another(self, now_s: float) -> Replica:
        self.number += 1
        return Replica(f"{self.name}{self.number}", now_s)

    def serve(self) -> None:
        for replica in self.replicas:
            for _ in range(self.chance.randrange(4)):
                failed = self.chance.random() < 0.3
                one = Counted(failed=1) if failed else Counted(answered=1, latency={self.chance.randrange(80, 90): 1})
                replica.counted = replica.counted.plus(one)

    def change(self, now_s: float) -> None:
        """Ends a replica and starts another, now and then."""
        if self.chance.random() < 0.3:
            gone = self.replicas.pop(self.chance.randrange(len(self.replicas)))
            self.lost = self.lost.plus(gone.counted.plus(gone.told, -1))
            self.ended = self.ended.plus(gone.counted)
            self.replicas.append(self.another(now_s))

    def readings(self, now_s: float) -> list[Reading]:
        """Returns the reports, of which a few get lost, in any order."""
        told = [replica for replica in self.replicas if self.chance.random() < 0.8]
        self.chance.shuffle(told)
        for replica in told:
            replica.told = replica.counted
        return [Reading(replica.name, now_s - replica.began_s, replica.counted) for replica in told]

    def total(self) -> Counted:
        """Returns the counts of all replicas that ever were."""
        total = self.ended
        for replica in self.replicas:
            total = total.plus(replica.counted)
        return total


@pytest.mark.parametrize("seed", range(20))
def test_every_request_counts_once_while_replicas_and_the_front_start_again(seed: int) -> None:
    chance = random.Random(seed)
    fleets = Fleet("candidate", chance), Fleet("stable", chance)
    for fleet in fleets:
        fleet.serve()
    now_s = BEGAN_S
    trial = Trial.begin(now_s)
    # The first collection: all replicas answer.
    start = [fleet.total() for fleet in fleets]
    first = [[Reading(one.name, now_s - one.began_s, one.counted) for one in fleet.replicas] for fleet in fleets]
    trial = trial.observed(*first, now_s)
    for fleet in fleets:
        for replica in fleet.replicas:
            replica.told = replica.counted
    for _ in range(40):
        now_s += 1
        for fleet in fleets:
            fleet.change(now_s)
            fleet.serve()
        trial = trial.observed(fleets[0].readings(now_s), fleets[1].readings(now_s), now_s)
        if chance.random() < 0.3:  # the front was killed, and reads what it had written
            trial = Trial.of_json(json.loads(json.dumps(trial.as_json())))
    for fleet, arm, before in zip(fleets, (trial.candidate, trial.stable), start, strict=True):
        untold = fleet.lost
        for replica in fleet.replicas:
            untold = untold.plus(replica.counted.plus(replica.told, -1))
        assert arm.counted == fleet.total().plus(before, -1).plus(untold, -1)


def test_counts_can_be_written_down_and_read_back() -> None:
    counted = Counted(1, 2, 3, 4, 5, 6, {90: 7})
    assert Counted.of_json(json.loads(json.dumps(counted.as_json()))) == counted
    assert Counted.of_json({}) == Counted()
