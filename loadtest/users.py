"""The closed loop: each of a number of users sends its next request after an answer and a pause.

Its rate falls when the server slows down. It measures the throughput for a number of users, or the highest throughput,
but not the latency at a given rate."""

import asyncio
import random

from loadtest.arrivals import SECOND_NS
from loadtest.distribution import Distribution
from loadtest.shooter import Seen, Shooter
from loadtest.shot import Shot
from loadtest.wires import Wire
from loadtest.workload import Workload

_LOST_PAUSE_S = 0.1  # after a failure, to avoid a tight loop if the server refuses connections


async def use(
    wire: Wire,
    workload: Workload,
    *,
    users: range,
    think: Distribution,
    seconds: float,
    seed: int = 0,
    start_ns: int | None = None,
    timeout_s: float = 10.0,
    seen: Seen | None = None,
) -> list[Shot]:
    """Runs users of a closed loop. No request starts after `seconds`.

    A shot is planned for the end of its user's pause. Each user starts with a pause, so that users do not start at the
    same instant. `users`: the numbers of the users, which several processes can divide among themselves."""
    shooter = Shooter(wire, start_ns, len(users), timeout_s)
    shots: list[Shot] = []
    end_ns = round(seconds * SECOND_NS)

    async def run_user(number: int) -> None:
        generator = random.Random(f"{seed} {number}")
        planned_ns = _pause_ns(think, generator)
        while planned_ns < end_ns:
            await shooter.wait_until(planned_ns)
            shot = await shooter.fire(planned_ns, workload.one(generator))
            shots.append(shot)
            if seen is not None:
                seen(shot)
            if shot.status is None:
                await asyncio.sleep(_LOST_PAUSE_S)
            planned_ns = shooter.now_ns() + _pause_ns(think, generator)

    async with asyncio.TaskGroup() as group:
        for number in users:
            group.create_task(run_user(number))
    return sorted(shots, key=lambda shot: shot.planned_ns)


def _pause_ns(think: Distribution, generator: random.Random) -> int:
    return round(think.number(generator) * SECOND_NS)
