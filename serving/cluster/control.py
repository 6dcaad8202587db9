"""Models come and go at run time, as in Triton's explicit mode: a load deploys a model's Serve application, or restarts
its replicas one by one; an unload deletes it. What there is to load is what the settings say."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray import serve

from serving.api.faults import CallFailed, Fault, unknown_model
from serving.cluster.environment import peer_header
from serving.cluster.probes import POLL_S, NeverUp, answers, expected, hears, is_ready_over_grpc
from serving.config import Settings

PATIENCE_S = 600.0  # as `headway serve` has at the start

logger = logging.getLogger("ray.serve")


class Control:
    """See `api.operations.ModelControl`. settings: these, or the same as plain data. gpus: as `app.applications`
    takes it. changed: called when a model has come or gone."""

    def __init__(self, settings: Settings | dict[str, Any], *, gpus: bool, changed: Callable[[], None]) -> None:
        self._settings = Settings.model_validate(settings)
        self._gpus = gpus
        self._grpc = bool(peer_header()) and bool(self._settings.server.grpc_port)
        self._changed = changed
        self._locks = {model.name: asyncio.Lock() for model in self._settings.models}
        server = self._settings.server
        self._grpc_address = f"{server.own_host}:{server.grpc_port}"

    async def load(self, name: str) -> None:
        async with self._lock(name):
            logger.info("%s: loading", name)
            # At the call: that module defines what is deployed, this one among it.
            from serving.cluster.app import deploy

            await asyncio.to_thread(deploy, self._settings, gpus=self._gpus, only=name)
            try:
                await self._until(name, self._is_up, "loaded")
            finally:
                self._changed()

    async def unload(self, name: str) -> None:
        async with self._lock(name):
            logger.info("%s: unloading", name)
            await asyncio.to_thread(serve.delete, name, _blocking=False)
            try:
                await self._until(name, self._is_gone, "unloaded")
            finally:
                self._changed()

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

    def _is_up(self, name: str) -> bool:
        """Raises CallFailed if it never will be."""
        try:
            count = expected(serve.status().applications.get(name))
        except NeverUp as error:
            raise CallFailed(Fault(500, f"failed to load '{name}': {error}")) from None
        if not count or not hears(self._settings.server.url, name, count):
            return False
        return not self._grpc or bool(is_ready_over_grpc(self._grpc_address, name))

    def _is_gone(self, name: str) -> bool:
        if name in serve.status().applications or answers(f"{self._settings.server.url}/v2/models/{name}/ready"):
            return False
        # Until HAProxy has forgotten it too, calls get there that nobody is left to answer.
        return not self._grpc or is_ready_over_grpc(self._grpc_address, name) is False
