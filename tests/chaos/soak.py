"""Runs half of the server's capacity for ten minutes. Memory, descriptors and tasks must not grow.

    python -m tests.chaos.soak [MINUTES]

Exit code 1 if one has grown, or if a request failed. Counts every process of the server: replicas, HAProxy,
the controller, Ray's own.
"""

import asyncio
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean

import yaml

from serving.config import load_settings
from serving.operate.launch import Cluster
from serving.operate.processes import descendants
from tests.chaos.conftest import SETTINGS, Headway, worst
from tests.chaos.crowd import OK, Crowd, Reply, ask

CLIENTS = 16
WARM_S = 10.0
LOOKS = 60
Look = dict[str, float]
# The growth that is allowed: a share of the value before, and a constant.
ROOM = {"memory_mb": (0.02, 16.0), "descriptors": (0.0, 16.0), "tasks": (0.0, 8.0)}


def look(headway: Headway) -> Look:
    """Returns memory and descriptors of all processes of the server together, and the tasks of the replica with
    most."""
    memory_mb = descriptors = 0.0
    for pid in descendants(os.getpid()):
        try:
            memory_mb += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:  # it has ended meanwhile
            continue
    return {"memory_mb": memory_mb, "descriptors": descriptors, "tasks": worst(headway.state(), "tasks")}


async def half_load(rate: float, until_s: float, replies: list[Reply]) -> None:
    """Sends requests at `rate` per second. Each client has a fixed period; one that is late sends at once."""

    async def client(number: int) -> None:
        period_s = CLIENTS / rate
        due_s = time.monotonic() + period_s * number / CLIENTS
        while time.monotonic() < until_s:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s + period_s, time.monotonic() - period_s)
            replies.append(await ask("steady"))

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


async def soak(headway: Headway, minutes: float) -> tuple[list[Look], list[Reply], float]:
    async with Crowd("steady", clients=CLIENTS, pause_s=0.0) as crowd:
        await asyncio.sleep(WARM_S)
    rate = len(crowd.replies) / WARM_S / 2
    replies: list[Reply] = []
    until_s = time.monotonic() + 60 * minutes
    load = asyncio.create_task(half_load(rate, until_s, replies))
    looks = []
    while not load.done():
        await asyncio.sleep(60 * minutes / LOOKS)
        looks.append(await asyncio.to_thread(look, headway))
    await load
    return looks, replies, rate


def grown(looks: list[Look]) -> dict[str, tuple[float, float]]:
    """Returns (from, to) of each quantity that is larger in the last third than in the second; the first third is
    warm-up."""
    third = len(looks) // 3
    found = {}
    for fact, (share, room) in ROOM.items():
        was = mean(one[fact] for one in looks[third : 2 * third])
        now = mean(one[fact] for one in looks[2 * third :])
        if now > was * (1 + share) + room:
            found[fact] = (was, now)
    return found


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(__file__).with_name("troubled.py"), folder)
        path = Path(folder, "headway.yaml")
        path.write_text(yaml.safe_dump(SETTINGS))
        cluster = Cluster(load_settings(path), path, print)
        try:
            cluster.start()
            cluster.wait_until_ready()
            looks, replies, rate = asyncio.run(soak(Headway(), minutes))
        finally:
            cluster.stop()
    bad = Counter(reply.what for reply in replies if reply.what != OK)
    third = len(looks) // 3
    print(f"{minutes:g} minutes at {rate:.0f} requests/s: {len(replies)} answers, not well: {dict(bad) or 'none'}")
    for fact in ROOM:
        parts = (looks[:third], looks[third : 2 * third], looks[2 * third :])
        print(f"  {fact:12} by thirds: " + "  ".join(f"{mean(one[fact] for one in part):8.1f}" for part in parts))
    growth = grown(looks)
    for fact, (was, now) in growth.items():
        print(f"  GREW: {fact} from {was:.1f} to {now:.1f}")
    return 1 if growth or bad else 0


if __name__ == "__main__":
    sys.exit(main())
