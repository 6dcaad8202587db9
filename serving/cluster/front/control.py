"""Loads and unloads models at run time, as in Triton's explicit mode: a load deploys a model's Serve application, or
replaces its replicas; an unload deletes it. Only models of the settings can be loaded.

A load is done when the new replicas answer, an unload when the model no longer answers. Replicas that were replaced or
unloaded finish their requests in the background, for half a minute or more.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

from ray import serve

from serving.api.faults import CallFailed, Fault, unknown_model
from serving.cluster.environment import peer_header
from serving.cluster.front.details import serve_details
from serving.cluster.probes import POLL_S, NeverUp, answers, hears, is_ready_over_grpc, replacing
from serving.config import Settings

PATIENCE_S = 600.0  # as long as `headway serve` waits at the start

logger = logging.getLogger("ray.serve")


class Deploy(Protocol):
    """Deploys models of the settings; see `app.deploy`."""

    def __call__(self, *, only: str) -> None: ...


class DeployOf(Protocol):
    """Deploys one application of these settings; see `app.deploy`."""

    def __call__(self, settings: Settings, *, only: str) -> None: ...


def control_of(deploy: DeployOf, settings: Settings) -> "Control":
    """Returns the control of these settings, for versions that are added at run time."""
    return Control(settings, deploy=partial(deploy, settings), changed=lambda: None)


class Control:
    """Implements `api.operations.ModelControl`. A model is loaded and unloaded with all its versions.

    deploy: deploys a model to the running Ray. changed: called after each load and unload, even if it failed."""

    def __init__(self, settings: Settings, *, deploy: Deploy, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._deploy = deploy
        self._grpc = bool(peer_header()) and bool(self._settings.server.grpc_port)
        self._changed = changed
        self._locks = {model.name: asyncio.Lock() for model in self._settings.models}
        server = self._settings.server
        self._grpc_address = f"{server.own_host}:{server.grpc_port}"

    async def load(self, name: str) -> None:
        async with self._lock(name):
            for application in self._applications(name):
                await self.bring_up(application)

    async def unload(self, name: str) -> None:
        async with self._lock(name):
            for application in self._applications(name):
                logger.info("%s: unloading", application)
                await asyncio.to_thread(serve.delete, application, _blocking=False)
                try:
                    await self._until(application, self._is_gone, "unloaded")
                finally:
                    self._changed()

    async def bring_up(self, application: str) -> None:
        """Deploys an application of the settings, and returns when its new replicas answer. Raises CallFailed."""
        logger.info("%s: loading", application)
        before = await asyncio.to_thread(replicas_of, application)
        await asyncio.to_thread(self._deploy, only=application)
        await self.until_up(application, before)

    async def until_up(self, application: str, before: Collection[str] = ()) -> None:
        """Returns when all replicas of an application answer, but those before. Raises CallFailed."""
        try:
            await self._until(application, partial(self._is_up, before=before), "loaded")
        finally:
            self._changed()

    def _applications(self, name: str) -> list[str]:
        return [application for application, model in self._settings.applications().items() if model.name == name]

    def _lock(self, name: str) -> asyncio.Lock:
        if name not in self._locks:
            raise CallFailed(unknown_model(name))
        return self._locks[name]

    async def _until(self, name: str, reached: Callable[[str], bool], what: str) -> None:
        for _ in range(round(PATIENCE_S / POLL_S)):
            if await asyncio.to_thread(reached, name):
                return
            await asyncio.sleep(POLL_S)
        raise CallFailed(Fault(503, f"'{name}' is not {what} after {PATIENCE_S:g} s; it may still be"))

    def _is_up(self, name: str, before: Collection[str]) -> bool:
        """Returns whether the new replicas answer. Raises CallFailed if the load has failed.

        before: ids of the replicas that are replaced."""
        found = serve_details()
        try:
            count = replacing(found.get(name) if found else None, before)
        except NeverUp as error:
            raise CallFailed(Fault(500, f"failed to load '{name}': {error}")) from None
        path = self._settings.path_of(name)
        if not count or not hears(self._settings.server.url, path, count, but_not=before):
            return False
        return not self._grpc or bool(self._is_ready_over_grpc(name))

    def _is_gone(self, name: str) -> bool:
        """Returns whether HAProxy no longer sends requests to the model's replicas."""
        if answers(f"{self._settings.server.url}{self._settings.path_of(name)}/ready"):
            return False
        return not self._grpc or self._is_ready_over_grpc(name) is False

    def _is_ready_over_grpc(self, application: str) -> bool | None:
        model = self._settings.applications()[application]
        return is_ready_over_grpc(self._grpc_address, model.name, model.version)


def replicas_of(name: str) -> set[str]:
    """Returns the ids of all replicas of a model, including those that are stopping."""
    found = serve_details()
    application = found.get(name) if found else None
    deployments = application.deployments.values() if application else ()
    return {replica.replica_id for deployment in deployments for replica in deployment.replicas}
