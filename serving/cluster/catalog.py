"""Which models there are and whether they are ready, as Ray Serve's controller knows it."""

import asyncio
import time
from typing import Any

from ray import serve

FRESH_S = 1.0
STATES = {"RUNNING": "READY", "DEPLOYING": "LOADING", "NOT_STARTED": "LOADING", "DELETING": "UNLOADING"}


class Catalog:
    """Answers from memory for a second, so that health checks do not load the controller."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._known: list[dict[str, str]] = []
        self._asked_s = float("-inf")

    async def models(self) -> list[dict[str, str]]:
        """`{name, version, state, reason}` for every model of the configuration."""
        now_s = time.monotonic()
        if now_s - self._asked_s > FRESH_S:
            self._asked_s = now_s
            self._known = entries(self._names, await asyncio.to_thread(serve.status))
        return self._known


def entries(names: list[str], status: Any) -> list[dict[str, str]]:
    """What the repository index says of each model, from Ray Serve's status."""
    found = []
    for name in names:
        application = status.applications.get(name)
        state = STATES.get(application.status, "UNAVAILABLE") if application else "UNAVAILABLE"
        reason = "" if state == "READY" else (application.message if application else "not deployed")
        found.append({"name": name, "version": "1", "state": state, "reason": reason})
    return found
