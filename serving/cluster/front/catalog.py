"""Lists the models and their states, as reported by Ray Serve's controller."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import serve

from serving.api.entry import ModelEntry, State
from serving.cluster.probes import short_cause
from serving.core.clock import SystemClock

FRESH_NS = 1_000_000_000
PATIENCE_S = 2.0
UNASKED = "Ray Serve's controller has not answered yet"

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class ModelState:
    """The state of a model according to Ray Serve. The fields are those of `ModelEntry`."""

    name: State
    reason: str = ""
    wanted: bool = True


class Catalog:
    """The states of all models, cached for a second, so that health checks do not load the controller. While the
    controller does not answer, the last known states stay valid, because models serve without it.

    configured: the entries of all models; their states are replaced by those of Ray Serve.
    explicit: clients load and unload models, so a model that is not deployed was unloaded.
    ask: returns the controller's status; blocks.
    """

    def __init__(
        self,
        configured: Sequence[ModelEntry],
        *,
        explicit: bool = False,
        ask: Callable[[], Any] = serve.status,
    ) -> None:
        self._configured = configured
        self._explicit = explicit
        self._ask = ask
        self._known = [replace(entry, state="UNAVAILABLE", reason=UNASKED) for entry in configured]
        self._asked_ns: int | None = None
        self._looking: asyncio.Future[Any] | None = None

    async def models(self) -> list[ModelEntry]:
        """Returns the entries of all configured models. Waits at most PATIENCE_S for the controller."""
        now_ns = SystemClock.now_ns()
        if self._asked_ns is None or now_ns - self._asked_ns > FRESH_NS:
            if self._looking is None:
                self._looking = asyncio.get_running_loop().run_in_executor(None, self._ask)
                self._looking.add_done_callback(self._learn)
            # While the controller restarts, its answer may take long; a health check cannot wait for it.
            await asyncio.wait([self._looking], timeout=PATIENCE_S)
        return self._known

    def configure(self, configured: Sequence[ModelEntry]) -> None:
        """Replaces the entries: the server has another set of versions."""
        self._configured = configured
        self._known = [replace(entry, state="UNAVAILABLE", reason=UNASKED) for entry in configured]
        self.forget()

    def forget(self) -> None:
        """Drops the cache after a load or unload, and ignores a query in flight, which may be older."""
        self._asked_ns = None
        self._looking = None

    def _learn(self, answer: asyncio.Future[Any]) -> None:
        is_latest = answer is self._looking
        if is_latest:
            self._looking = None
        if answer.cancelled():
            return
        if error := answer.exception():
            logger.warning("Ray Serve's controller does not answer, the last known state stands: %s", error)
        elif is_latest:
            self._known = entries(self._configured, answer.result(), explicit=self._explicit)
        if is_latest:
            self._asked_ns = SystemClock.now_ns()


def entries(configured: Sequence[ModelEntry], status: Any, *, explicit: bool = False) -> list[ModelEntry]:
    """Returns the entries of the repository index, with the states of Ray Serve's status."""
    found = []
    for entry in configured:
        application = status.applications.get(entry.application)
        deployments = application.deployments.values() if application else ()
        running = sum(one.replica_states.get("RUNNING", 0) for one in deployments)
        state = model_state(application, running=running, explicit=explicit)
        wanted = entry.wanted and state.wanted
        found.append(replace(entry, state=state.name, reason=state.reason, wanted=wanted))
    return found


def model_state(application: Any | None, *, running: int, explicit: bool = False) -> ModelState:
    """Returns the state of a model. READY means that it answers, even if its next version is loading or has failed.

    application: from Serve's status or details, None if there is none. running: the number of running replicas.
    explicit: see `Catalog`.
    """
    status = application.status if application else None
    if explicit and status in (None, "DELETING"):
        return ModelState("UNAVAILABLE", "unloaded", wanted=False)
    if application is None:
        return ModelState("UNAVAILABLE", "not deployed")
    if status == "DELETING":
        return ModelState("UNLOADING")
    if status == "RUNNING":
        return ModelState("READY")
    if status in ("DEPLOYING", "NOT_STARTED"):
        return ModelState("READY") if running else ModelState("LOADING", application.message)
    return ModelState("READY" if running else "UNAVAILABLE", short_cause(application))
