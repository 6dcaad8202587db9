"""The versions that are served: those of the settings, and those that a release adds and removes at run time.

Each is an application of Ray Serve. A front that was restarted finds those that it has added itself, by their names.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ray import serve

from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed, Fault
from serving.config import ModelSettings, Settings
from serving.traffic.routes import Route, application_of, model_of

BY_MANIFEST = "this server's applications come from a manifest: list the version in the settings and apply them again"

logger = logging.getLogger("ray.serve")


def _deleted(application: str) -> None:
    serve.delete(application, _blocking=False)


def _application(settings: Settings, version: ModelSettings) -> str:
    """Returns the application that serves this version by these settings, which list it."""
    listed = settings.applications().items()
    return next(name for name, one in listed if (one.name, one.version) == (version.name, version.version))


class Brings(Protocol):
    """Brings applications of some settings up; `Control` does."""

    async def bring_up(self, application: str) -> None: ...

    async def until_up(self, application: str) -> None: ...


class Versions:
    """The versions of all models.

    control: returns what brings up the applications of these settings; None if applications come from a manifest.
    changed: called after each change, with this. status: returns Ray Serve's status, and delete deletes an application;
    both block.
    """

    def __init__(
        self,
        settings: Settings,
        configured: list[ModelEntry],
        *,
        control: Callable[[Settings], Brings] | None,
        changed: Callable[["Versions"], None],
        status: Callable[[], Any] = serve.status,
        delete: Callable[[str], None] = _deleted,
    ) -> None:
        self._settings = settings
        self._entries = {entry.application: entry for entry in configured}
        self._control = control
        self._changed = changed
        self._status = status
        self._delete = delete
        self._lock = asyncio.Lock()

    def entries(self) -> list[ModelEntry]:
        return list(self._entries.values())

    def served(self) -> Mapping[str, Mapping[str, str]]:
        """Returns the applications by model and version, of each model the first listed first."""
        found: dict[str, dict[str, str]] = {}
        for entry in self._entries.values():
            found.setdefault(entry.name, {})[entry.version] = entry.application
        return found

    async def find(self) -> None:
        """Finds the versions in Ray Serve that the settings do not list."""
        names = {entry.name for entry in self._entries.values()}
        for application in (await asyncio.to_thread(self._status)).applications:
            model = model_of(application)
            if application not in self._entries and model in names:
                self._enter(model, application.removeprefix(application_of(model, "")), application)
        self._changed(self)

    def announce(self, version: ModelSettings) -> None:
        """Enters a version that `add` is about to deploy. HAProxy has to know who answers the model before it knows of
        a second version, so the routes are to be told before that is deployed."""
        if self._control is None:
            return
        application = _application(self._settings.with_version(version), version)
        if application not in self._entries:
            self._enter(version.name, version.version, application)
            self._changed(self)

    async def add(self, version: ModelSettings) -> str:
        """Deploys one more version of a model and returns its application, when all its replicas answer at the
        version's path. One that is deployed already is only waited for.

        Raises CallFailed, with the replica's error if the version does not start."""
        if self._control is None:
            raise CallFailed(Fault(400, BY_MANIFEST))
        async with self._lock:
            extended = self._settings.with_version(version)
            application = _application(extended, version)
            control = self._control(extended)
            there = (await asyncio.to_thread(self._status)).applications.get(application)
            if there is None or there.status in ("DELETING", "DEPLOY_FAILED"):
                await control.bring_up(application)
            else:
                await control.until_up(application)
            self._enter(version.name, version.version, application)
            self._changed(self)
        return application

    async def remove(self, route: Route, version: str) -> None:
        """Deletes a version that gets no traffic. route: the one in force. Raises CallFailed (409 if it gets any)."""
        if version == route.stable or (version == route.candidate and route.share):
            raise CallFailed(Fault(409, f"version {version} of {route.model} still answers requests"))
        if self._control is None:
            raise CallFailed(Fault(400, BY_MANIFEST))
        async with self._lock:
            application = route.applications[version]
            await asyncio.to_thread(self._delete, application)
            self._entries.pop(application, None)
            self._changed(self)

    def _enter(self, model: str, version: str, application: str) -> None:
        logger.info("%s: version %s is served", model, version)
        # It comes and goes with a release, so the server is ready without it.
        known = self._entries.get(application)
        signature = known.signature if known else None
        self._entries[application] = ModelEntry(
            name=model, version=version, application=application, signature=signature, wanted=False
        )
