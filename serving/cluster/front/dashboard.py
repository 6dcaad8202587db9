"""Serves the data of the dashboard page: the last hour of every model, which the front always records.

Every five seconds a snapshot costs each replica some 30 µs and the front some milliseconds per replica; so it is taken
less often of more than fifteen replicas. After every twelfth the hour is written to a file, from which a restarted
front reads it.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from serving.api.http.front import LivePage, Viewer
from serving.core.clock import SystemClock
from serving.telemetry.history import ALL, BOUNDS_MS, EVERY_S, KEPT, History, Point, only_of
from serving.telemetry.quotas import standing
from serving.telemetry.snapshot import ClusterSnapshot
from serving.telemetry.tenants import label
from serving.traffic.routes import model_of

logger = logging.getLogger("ray.serve")
SHOWN_DECISIONS = 12
SAVED_EVERY = 12  # snapshots
ASKED_PER_S = 3  # replicas, at most


def pause_s(replicas: int) -> float:
    """Returns the time between two snapshots of this many replicas."""
    return max(EVERY_S, replicas / ASKED_PER_S)


class Dashboard:
    """Records the last hour of every model and answers requests for it.

    look: returns a snapshot of the cluster. decisions: returns the latest scaling decisions of a model; may block.
    file: the file for the hour; None: only in memory. now: returns seconds since 1970."""

    def __init__(
        self,
        look: Callable[[], Awaitable[ClusterSnapshot]],
        decisions: Callable[[str], list[dict[str, Any]]],
        *,
        name: str = "headway",
        file: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._look = look
        self._decisions = decisions
        self._name = name
        self._file = file
        self._now = now
        self.history = History()
        self._watching: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Restores the hour from the file, and starts the task that takes a snapshot every few seconds."""
        await asyncio.to_thread(self._restore)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def look(self) -> None:
        """Takes one snapshot and adds it to the history."""
        self.history.add(await self._look(), at_s=self._now(), now_ns=SystemClock.now_ns())

    def pages(self) -> Mapping[str, LivePage]:
        return {"/dashboard/data": self._answer}

    async def save(self) -> None:
        """Writes the history to the file atomically."""
        if self._file is not None:
            await asyncio.to_thread(_write, self._file, self.history.lines())

    def _restore(self) -> None:
        if self._file is None or not self._file.exists():
            return
        try:
            self.history.restore(json.loads(self._file.read_text()), self._now() - KEPT * EVERY_S)
        except (OSError, ValueError) as error:
            logger.warning("the dashboard begins anew: %s: %s", self._file, error)

    async def _watch(self) -> None:
        for number in count(1):
            try:
                await self.look()
                if number % SAVED_EVERY == 0:
                    await self.save()
            except Exception:
                logger.exception("the dashboard could not look at the cluster; it tries again")
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        latest = self.history.latest
        return pause_s(sum(len(model.replicas) for model in latest.models) if latest else 0)

    async def _answer(self, query: str, viewer: Viewer) -> tuple[str, bytes]:
        """Answers `/dashboard/data`. Query: `model`: only this application, else the sum of all; `since`: only points
        after this instant, in seconds since 1970."""
        asked = parse_qs(query)
        model = asked.get("model", [ALL])[0]
        every = self.history.latest.models if self.history.latest else ()
        models = [known for known in every if viewer.sees(known.name)]
        chosen = [known.application for known in models if model in (ALL, known.application)]
        decisions = [
            {"model": name, **decision}
            for name in (chosen if viewer.sees_tenants else ())  # their reasons tell of the load of all
            for decision in await asyncio.to_thread(self._decisions, name)
        ]
        points: list[Point] = []
        if len(models) == len(every) or viewer.sees(model_of(model)):
            points = self.history.points(model, _number(asked.get("since", ["0"])[0]))
        if not viewer.sees_tenants:
            points = [only_of(viewer.tenant, point) for point in points]
        told = {
            "server": self._name,
            "now": self._now(),
            "every_s": self._pause_s(),
            "bounds_ms": BOUNDS_MS,
            "models": [
                {
                    "name": known.application,
                    "state": known.state,
                    "reason": known.reason,
                    "running": known.running,
                    "wanted": known.wanted,
                    "limit": known.limit,
                    "silent": known.silent,
                    "budget_ms": max((one.budget_ms or 0 for one in known.replicas), default=0) or None,
                }
                for known in models
            ],
            "all": len(models) == len(every),  # the sum of all models is for those who see all
            "tenant": None if viewer.sees_tenants else label(viewer.tenant),  # the only one that is told
            "quotas": self._quotas(viewer),
            "points": points,
            "decisions": sorted(decisions, key=lambda one: one["at"])[-SHOWN_DECISIONS:],
        }
        return "application/json", json.dumps(told, separators=(",", ":")).encode()

    def _quotas(self, viewer: Viewer) -> dict[str, Any] | None:
        """Returns how quotas stand over all replicas, of the viewer's tenants; None without quotas."""
        latest = self.history.latest
        replicas = [replica for model in latest.models for replica in model.replicas] if latest else []
        readings = [replica.quotas for replica in replicas if replica.quotas is not None]
        if not readings:
            return None
        told = standing(readings)
        if not viewer.sees_tenants:
            own = label(viewer.tenant)
            told["tenants"] = {name: left for name, left in told["tenants"].items() if name == own}
        return told


def _write(file: Path, lines: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    own = file.with_suffix(f".{os.getpid()}")
    own.write_text(json.dumps(lines, separators=(",", ":")))
    own.replace(file)


def _number(text: str) -> float:
    """Parses a number. Text that is no number gives 0, so that all points are sent."""
    try:
        return float(text)
    except ValueError:
        return 0.0
