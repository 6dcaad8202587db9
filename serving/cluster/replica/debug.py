"""Reports the full state of a replica for debugging, and the stacks of its threads and tasks.

`kill -USR1 PID` writes the stack of every thread into a file beside the logs, even while the event loop is blocked, and
the stacks of the tasks as soon as the loop runs again.
"""

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from serving.cluster.replica.engines import AnyEngine
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine
from serving.telemetry.snapshot import ReplicaSnapshot

LOOK_S = 1.0  # the time between checks whether the threads were dumped, after which the tasks follow


class StackDump:
    """Dumps all stacks on SIGUSR1. Create it on the event loop whose tasks are to be dumped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", buffering=1)
        self._loop = asyncio.get_running_loop()
        self._seen = 0
        faulthandler.register(signal.SIGUSR1, file=self._file, all_threads=True)
        self._look()

    def _look(self) -> None:
        """Writes the tasks if faulthandler has written the threads. faulthandler has no callback, but the file has
        grown then; reading its size takes a microsecond."""
        if os.fstat(self._file.fileno()).st_size > self._seen:
            self._file.write(_text(tasks(self._loop)))
            self._seen = os.fstat(self._file.fileno()).st_size
        self._timer = self._loop.call_later(LOOK_S, self._look)

    def close(self) -> None:
        self._timer.cancel()
        faulthandler.unregister(signal.SIGUSR1)
        self._file.close()


def tasks(loop: asyncio.AbstractEventLoop) -> dict[str, list[str]]:
    """Returns the stack of every task of this loop, innermost frame last."""
    return {
        f"{task.get_name()} {getattr(task.get_coro(), '__qualname__', '')}": [
            _place(frame) for frame in task.get_stack()
        ]
        for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    }


def threads() -> dict[str, list[str]]:
    """Returns the stack of every thread of this process, innermost frame last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found: dict[str, list[str]] = {}
    for ident, innermost in sys._current_frames().items():
        frame: FrameType | None = innermost
        places = found[f"{names.get(ident, '?')} {ident}"] = []
        while frame is not None:
            places.insert(0, _place(frame))
            frame = frame.f_back
    return found


def _place(frame: FrameType) -> str:
    """Formats a frame. Python's `traceback` cannot: it fails on frames of compiled code, which have no line."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"


def state(engine: AnyEngine, snapshot: ReplicaSnapshot) -> dict[str, Any]:
    """Returns the state of one replica, ready for JSON. `balance` is "good", or the fault in the ledger."""
    counts = snapshot.counts
    return {
        "replica": snapshot.replica,
        "node": snapshot.node,
        "pid": os.getpid(),
        "device": snapshot.device,
        "door": snapshot.door,
        "ready": snapshot.ready,
        "uptime_s": snapshot.uptime_ns / 1e9,
        "engine": repr(engine),
        "balance": _balance(engine),
        "received": snapshot.received,
        "queued": snapshot.queued,
        "in_flight": snapshot.in_flight,
        "ended": dict(engine.ledger.ended),
        "lines": [] if isinstance(engine, GeneratingEngine) else _lines(engine),
        "expected_wait_ms": snapshot.expected_wait_ns / 1e6,
        "busy_ns": engine.reading().busy_ns,
        "lanes": snapshot.lanes,
        "rows": snapshot.statistics.inference_count,
        "batches": snapshot.statistics.execution_count,
        "useful_batch_rows": snapshot.useful_batch_rows,
        "largest_batch_rows": snapshot.largest_batch_rows,
        "budget_ms": snapshot.budget_ms,
        "request_ns": {"bounds": counts.request_ns.bounds, "counts": counts.request_ns.counts},
        "cuts": dict(counts.cuts),
        "memory_bytes": snapshot.memory_bytes,
        "cpu_s": snapshot.cpu_ns / 1e9,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "garbage": gc.get_count(),
    }


def _lines(engine: Engine) -> list[dict[str, Any]]:
    """Returns the lines of the queue with the number of requests in each."""
    return [
        {"group": str(group), "length": length, "tenant": tenant, "requests": len(line)}
        for (group, length), by_tenant in engine.batcher.queue.lines.items()
        for tenant, line in by_tenant.items()
    ]


def _text(stacks: dict[str, list[str]]) -> str:
    return "".join(f"\n{name}\n  " + "\n  ".join(places) + "\n" for name, places in stacks.items())


def _balance(engine: AnyEngine) -> str:
    try:
        engine.ledger.check()
    except AssertionError as error:
        return str(error)
    return "good"
