"""The closed loop: so many users, each asking again when answered and after a pause. It slows down with the server.

Its question is what the server does for so many people, or at most; what clients feel at a given rate it cannot say."""

import asyncio
import random

from loadtest.arrivals import SECOND_NS
from loadtest.distribution import Distribution
from loadtest.shooter import Seen, Shooter
from loadtest.shot import Shot
from loadtest.wires import Wire
from loadtest.workload import Workload

_LOST_PAUSE_S = 0.1  # after a failure: a server that refuses connections must not be asked in a tight loop


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
    """`users` are their numbers, so that several processes can share them. Nobody begins a request after `seconds`.

    A shot is planned for the end of its user's pause. Everybody begins with a pause, or all would come at once."""
    shooter = Shooter(wire, start_ns, len(users), timeout_s)
    shots: list[Shot] = []
    end_ns = round(seconds * SECOND_NS)

    async def live(number: int) -> None:
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
            group.create_task(live(number))
    return sorted(shots, key=lambda shot: shot.planned_ns)


def _pause_ns(think: Distribution, generator: random.Random) -> int:
    return round(think.number(generator) * SECOND_NS)
