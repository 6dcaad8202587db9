"""Runs the servers of `served/headway.yaml` in one process, controlled by lines on stdin, for `places.Alone`.

    python -m tests.hostile.alone

Writes its addresses, then its state for each line that it reads. A number in a line is the time in seconds for which
it then watches its event loop.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from serving.api.shared_memory.regions import Regions
from serving.cluster.replica.heap import Heap, malloc_trim
from serving.cluster.replica.loop_watch import LoopWatch
from serving.cluster.replica.snapshots import memory_bytes
from serving.config import load_settings
from tests.hostile.places import SETTINGS
from tests.house import House, house


def balance(running: House) -> str:
    """Returns "good", or the error in a ledger."""
    try:
        for engine in running.engines.values():
            engine.ledger.check()
    except AssertionError as error:
        return str(error)
    return "good"


async def state(running: House, watch: LoopWatch, heap: Heap, line: str) -> dict[str, Any]:
    await heap.look()  # replicas do it at Ray's health checks
    facts = {"model": "all", "pid": os.getpid(), "memory_bytes": memory_bytes(), "balance": balance(running)}
    facts["loop"] = watch.report()
    if line != "look":
        watch.watch(float(line))
    return facts


def main() -> None:
    sys.path.insert(0, str(SETTINGS.parent))
    specs = load_settings(SETTINGS).model_specs()
    with tempfile.TemporaryDirectory() as folder, house(*specs, regions=Regions(Path(folder))) as running:
        watch, heap = LoopWatch(), Heap(malloc_trim())
        addresses = {"http": address(running.http), "grpc": address(running.grpc)}
        print(json.dumps(addresses), flush=True)
        for line in sys.stdin:
            answer = asyncio.run_coroutine_threadsafe(state(running, watch, heap, line.strip()), running.loop)
            print(json.dumps(answer.result()), flush=True)


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    main()
