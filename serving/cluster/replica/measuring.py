"""Makes replicas that start on one machine measure one after another, with file locks that end with their processes.

A replica measures its batches before it serves. If others measure on the same cores at the same time, long batches seem
slower than they are, and the batcher would choose too small sizes until it has learned better.
"""

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

CORES_EACH = 2  # one computes, one is left to other processes that start
POLL_S = 0.05
PATIENCE_S = 60.0  # the longest wait: a disturbed measurement is better than a replica that never starts


@asynccontextmanager
async def turn(folder: Path, cores: float) -> AsyncIterator[None]:
    """Holds a turn to measure. `cores // CORES_EACH` replicas of this machine may hold one at the same time."""
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
