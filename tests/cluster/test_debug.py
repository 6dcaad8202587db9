"""Tests the state and the stacks that a replica reports for debugging."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.cluster.front.pages import debug_pages
from serving.cluster.replica.debug import LOOK_S, StackDump, state, threads
from serving.cluster.replica.loop_watch import TICK_S, LoopWatch
from serving.cluster.replica.snapshots import SnapshotSource, cpu_ns
from serving.protocol.errors import BadMessage
from serving.runtime.engine import Engine
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import ClusterSnapshot
from serving.testing.models import ScriptedModel


def test_a_signal_writes_the_stacks_of_all_threads_and_tasks(tmp_path: Path) -> None:
    path = tmp_path / "stacks.log"

    async def waits_for_something() -> None:
        await asyncio.Event().wait()

    async def story() -> str:
        dump = StackDump(path)
        try:
            waiting = asyncio.create_task(waits_for_something(), name="the waiting one")
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGUSR1)
            assert "most recent call first" in path.read_text(), "at once, whatever the event loop does"
            async with asyncio.timeout(20 * LOOK_S):
                while "waits_for_something" not in path.read_text():
                    await asyncio.sleep(0.01)
            waiting.cancel()
        finally:
            dump.close()
        return path.read_text()

    assert "the waiting one" in asyncio.run(story())


def test_the_state_is_json_and_holds_what_waits_and_whether_the_ledger_balances() -> None:
    model, recorder = ScriptedModel(), Recorder()

    async def story() -> dict[str, Any]:
        async with Engine([model], observer=recorder) as engine:
            teller = SnapshotSource(engine, recorder, replica="r1", node="n1")
            model.gate.clear()
            ticket = engine.submit({"x": np.ones((1, 4), np.float32)}, rows=1, tenant="gold")
            await asyncio.to_thread(model.entered.acquire)
            waiting = engine.submit({"x": np.ones((1, 4), np.float32)}, rows=1, tenant="gold")
            told: dict[str, Any] = json.loads(json.dumps(state(engine, teller.snapshot())))
            model.gate.set()
            await asyncio.gather(ticket, waiting)
            return told

    told = asyncio.run(story())
    assert (told["replica"], told["balance"], told["queued"], told["in_flight"]) == ("r1", "good", 1, 1)
    assert [(line["tenant"], line["requests"]) for line in told["lines"]] == [("gold", 1)]
    assert "queue=1 requests" in str(told["engine"])


def test_every_thread_is_listed_with_its_name_and_stack() -> None:
    found = threads()
    main = next(stack for name, stack in found.items() if name.startswith("MainThread"))
    assert "test_every_thread_is_listed" in " ".join(main)


def test_stalls_of_the_loop_are_measured_only_during_a_watch() -> None:
    def compute(cpu_ms: float) -> None:
        until_ns = cpu_ns() + int(cpu_ms * 1e6)
        while cpu_ns() < until_ns:
            pass

    async def turns() -> None:
        """Waits until the watch has ticked after everything that happened before."""
        await asyncio.sleep(2 * TICK_S)

    async def story() -> None:
        watch = LoopWatch()
        assert watch.report() == {"watched_s": 0, "longest_stall_ms": 0, "longest_own_stall_ms": 0}
        watch.watch(60)
        compute(100)
        await turns()
        assert watch.report()["longest_stall_ms"] >= watch.report()["longest_own_stall_ms"] >= 50
        watch.watch(60)
        compute(100)
        assert watch.report()["longest_own_stall_ms"] >= 50, "also where it is asked before it ticks"
        for seconds in (0, -1, float("nan")):
            watch.watch(seconds)
            await turns()
            before = watch.report()
            compute(100)
            await turns()
            assert watch.report() == before, "it has ended"
        watch.close()

    asyncio.run(story())


def test_the_page_of_the_state_asks_replicas_to_watch_their_loops_for_as_long_as_it_says() -> None:
    asked: list[tuple[object, ...]] = []

    class Nobody:
        async def snapshot(self) -> ClusterSnapshot:
            return ClusterSnapshot(models=(), took_ns=0)

        async def ask(self, *what: object) -> dict[str, object]:
            asked.append(what)
            return {}

    async def story() -> None:
        page = debug_pages(Nobody())["/debug/state"]  # type: ignore[arg-type]
        for query in ("", "watch_loop_s=30", "watch_loop_s=0.5&watch_loop_s=7"):
            kind, content = await page(query, bool)
            told = json.loads(content)
            assert (kind, told["models"], told["front"]["pid"]) == ("application/json", [], os.getpid())
            assert told["front"]["memory_bytes"] > 1 << 20
            assert told["front"]["loop"]["longest_own_stall_ms"] >= 0
        with pytest.raises(BadMessage, match="watch_loop_s: 'long' is no number of seconds"):
            await page("watch_loop_s=long", bool)

    asyncio.run(story())
    assert asked == [("debug_state",), ("debug_state", 30.0), ("debug_state", 0.5)]
