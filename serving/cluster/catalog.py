"""Which models there are and whether they are ready, as Ray Serve's controller knows it."""

import asyncio
from typing import Any

from ray import serve

from serving.core.clock import SystemClock

FRESH_NS = 1_000_000_000
STATES = {"RUNNING": "READY", "DEPLOYING": "LOADING", "NOT_STARTED": "LOADING", "DELETING": "UNLOADING"}


class Catalog:
    """Answers from memory for a second, so that health checks do not load the controller."""

    def __init__(self, configured: dict[str, dict[str, Any]], *, explicit: bool = False) -> None:
        """configured: `version` and `signature` of every model, by name. explicit: models come and go at the wish of
        clients, so one that is not deployed was unloaded."""
        self._configured = configured
        self._explicit = explicit
        self._known: list[dict[str, Any]] = []
        self._asked_ns: int | None = None

    async def models(self) -> list[dict[str, Any]]:
        """`{name, version, signature, state, reason, wanted}` for every model of the configuration."""
        now_ns = SystemClock.now_ns()
        if self._asked_ns is None or now_ns - self._asked_ns > FRESH_NS:
            self._asked_ns = now_ns
            status = await asyncio.to_thread(serve.status)
            self._known = entries(self._configured, status, explicit=self._explicit)
        return self._known

    def forget(self) -> None:
        """A model has come or gone."""
        self._asked_ns = None


def entries(configured: dict[str, dict[str, Any]], status: Any, *, explicit: bool = False) -> list[dict[str, Any]]:
    """What the repository index says of each model, from Ray Serve's status."""
    found = []
    for name, facts in configured.items():
        application = status.applications.get(name)
        state = STATES.get(application.status, "UNAVAILABLE") if application else "UNAVAILABLE"
        absent = "unloaded" if explicit else "not deployed"
        reason = "" if state == "READY" else (application.message if application else absent)
        wanted = application is not None or not explicit
        found.append({"name": name, **facts, "state": state, "reason": reason, "wanted": wanted})
    return found
