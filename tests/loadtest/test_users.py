"""The closed loop: each user waits for an answer, pauses, and sends the next request."""

import asyncio

from loadtest.distribution import Distribution
from loadtest.shot import Shot
from loadtest.users import use
from loadtest.wires import Flight
from loadtest.workload import Prepared, Workload
from tests.loadtest.scripted import ScriptedWire

WORKLOAD = Workload([Prepared(request="a", task="a"), Prepared(request="b", task="b")], [1, 1])


def used(users: range, think: str, seconds: float, seed: int = 0) -> list[Shot]:
    wire = ScriptedWire(lambda *_: Flight(0, 0, 0, 200))
    pause = Distribution.parse(think, "think")
    return asyncio.run(use(wire, WORKLOAD, users=users, think=pause, seconds=seconds, seed=seed))


def test_a_user_asks_again_after_each_answer_until_the_time_is_over() -> None:
    shots = used(range(2), think="0.001", seconds=0.3)  # hundreds, unless the machine is very busy
    assert len(shots) >= 4
    assert all(0 <= shot.planned_ns < 300_000_000 for shot in shots)
    assert [shot.planned_ns for shot in shots] == sorted(shot.planned_ns for shot in shots)


def test_a_user_whose_first_pause_is_longer_than_the_run_sends_nothing() -> None:
    assert used(range(5), think="1", seconds=0.01) == []


def test_a_user_asks_the_same_things_whichever_process_they_live_in() -> None:
    together = used(range(3), think="uniform(0, 0.01)", seconds=0.01, seed=4)
    alone = used(range(2, 3), think="uniform(0, 0.01)", seconds=0.01, seed=4)
    assert alone[0].planned_ns in {shot.planned_ns for shot in together}
