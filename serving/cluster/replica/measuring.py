"""Replicas that start on one machine measure in turns, by locks on files that end with their processes.

What a batch takes is measured before service. Beside others that do the same on the same cores the long batches seem
slower than they are, and the queue would hold to sizes too small until it has found out better.
"""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

CORES_EACH = 2  # one computes, one is left to whatever else starts
POLL_S = 0.05
PATIENCE_S = 60.0  # longer than this nobody waits: a measurement disturbed is better than a replica that never comes


@asynccontextmanager
async def turn(folder: Path, cores: float) -> AsyncIterator[None]:
    """Held while one measures; as many may at once as have cores enough on this machine."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + PATIENCE_S
    with ExitStack() as held:
        places = [held.enter_context(place) for place in _places(folder, max(1, int(cores // CORES_EACH)))]
        while not any(map(_is_taken, places)) and loop.time() < give_up_s:  # noqa: ASYNC110 - no event tells of a lock
            await asyncio.sleep(POLL_S)
        yield


def _places(folder: Path, count: int) -> list[IO[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    return [(folder / f"measuring-{number}").open("w") for number in range(count)]


def _is_taken(place: IO[str]) -> bool:
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
