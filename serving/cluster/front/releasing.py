"""Composes the releases of a front: logs of models, their versions in Ray Serve, their replicas, and the judge."""

import asyncio
import json
import logging
import random
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from serving.api.faults import CallFailed
from serving.cluster.front.catalog import model_state
from serving.cluster.front.collector import Collector
from serving.cluster.front.details import Application, serve_details
from serving.cluster.front.evidence import EvidenceSource
from serving.cluster.front.releases import FrontReleases, OneModel
from serving.cluster.front.routing import RouteControl
from serving.cluster.front.versions import Versions
from serving.cluster.probes import FAILED, short_cause
from serving.cluster.registered import Unresolved, model_settings
from serving.config import ModelSettings, Settings
from serving.core.clock import Calendar
from serving.registry.log import ModelLog
from serving.release.deciding import SMOKE, Standing
from serving.release.judging import Judging, Readings
from serving.release.log import ReleaseLog
from serving.release.replay import recorded
from serving.release.rollout import Rollout, Undeployable
from serving.release.shadow import body_of, shadow, smoke, values_of
from serving.release.state import Release
from serving.store.objects import BadPath, scheme_of
from serving.store.place import NoState, registry_place

logger = logging.getLogger("ray.serve")
BY = "the server"
TRIAL_S = 60.0  # for one answer
SEED = 20_261_129  # of values that no recording holds


def open_releases(
    settings: Settings,
    open_log: Callable[[str], ModelLog],
    *,
    versions: Versions,
    routes: RouteControl,
    collector: Collector,
) -> FrontReleases:
    """Returns the releases of all models of the settings, not driven yet. open_log: returns the log of a model."""
    by_name: dict[str, list[ModelSettings]] = {}
    for model in settings.models:
        by_name.setdefault(model.name, []).append(model)
    needed = settings.registry.approvals

    def opened(name: str) -> OneModel:
        listed = by_name[name]
        log = ReleaseLog(open_log(name), [model.version for model in listed], needed=needed, calendar=Calendar())
        running = RunningVersions(settings, name, versions, routes)
        collect = partial(_readings, EvidenceSource(collector.ask), versions, name)
        trials = ReplicaTrials(settings, listed[0], versions, collector)
        judging = Judging(collect, lambda: Calendar.now_ns() / 1e9)
        return OneModel(log, Rollout(log, running, trials, judging, calendar=Calendar(), by=BY))

    return FrontReleases([*by_name], opened, calendar=Calendar(), routed=routes.look)


def has_registry(settings: Settings) -> bool:
    """Returns whether the registry may hold something: it is in a bucket, or its folder is there."""
    try:
        scheme, place = scheme_of(registry_place(settings.registry.place, settings.server.state))
    except (BadPath, NoState):
        return False
    return scheme != "file" or Path(place).is_dir()


class RunningVersions:
    """Implements `rollout.Versions` for one model. A version is brought up in a task, since that takes minutes."""

    def __init__(self, settings: Settings, model: str, versions: Versions, routes: RouteControl) -> None:
        self._settings = settings
        self._model = model
        self._versions = versions
        self._routes = routes
        self._coming: dict[str, asyncio.Task[str]] = {}

    async def standing(self, version: str) -> tuple[Standing, str]:
        if (coming := self._coming.get(version)) is not None:
            if not coming.done():
                return Standing.LOADING, ""
            del self._coming[version]
            if error := coming.exception():
                text = error.fault.text if isinstance(error, CallFailed) else repr(error)
                logger.warning("%s: v%s did not come up: %s", self._model, version, text)
                is_final = isinstance(error, CallFailed) and error.fault.status in (400, 500)
                return (Standing.FAILED if is_final else Standing.LOADING), text
        application = self._versions.served().get(self._model, {}).get(version)
        if application is None:
            return Standing.ABSENT, ""
        found = await asyncio.to_thread(serve_details)
        return (Standing.UNKNOWN, "") if found is None else standing_of(found.get(application))

    async def deploy(self, version: str) -> None:
        try:
            settings = await model_settings(self._settings, self._model, version)
        except Unresolved as error:
            raise Undeployable(str(error)) from None
        if version not in self._coming:
            self._versions.announce(settings)
            await self._routes.look(self._model)  # before HAProxy hears of a second version
            self._coming[version] = asyncio.get_running_loop().create_task(self._versions.add(settings))

    async def keep_only(self, versions: Collection[str]) -> None:
        configured = {model.version for model in self._settings.models if model.name == self._model}
        for version in [*self._versions.served().get(self._model, {})]:
            if version not in configured and version not in versions:
                try:
                    await self._versions.remove(self._routes.route(self._model), version)
                except CallFailed as failed:
                    logger.warning("%s: v%s stays: %s", self._model, version, failed.fault.text)


def standing_of(application: Application | None) -> tuple[Standing, str]:
    """Returns how an application of Ray Serve stands, and why."""
    if application is None or application.status == "DELETING":
        return Standing.ABSENT, ""
    deployments = application.deployments.values()
    running = sum(replica.state == "RUNNING" for one in deployments for replica in one.replicas)
    if running:
        return Standing.READY, ""
    if application.status in FAILED:
        return Standing.FAILED, short_cause(application)
    state = model_state(application, running=running)
    return (Standing.READY if state.name == "READY" else Standing.LOADING), state.reason


class ReplicaTrials:
    """Implements `rollout.Trials` by the replicas of both versions."""

    def __init__(self, settings: Settings, model: ModelSettings, versions: Versions, collector: Collector) -> None:
        self._record_folder = settings.server.record_folder
        self._model = model
        self._versions = versions
        self._collector = collector

    async def made(self, test: str, release: Release) -> tuple[Mapping[str, Any], str]:
        example = self._model.example
        if test == SMOKE:
            return await smoke(self._ask, release.version, example)
        plan = release.plan
        bodies = await asyncio.to_thread(bodies_of, self._record_folder, self._model.name, plan.shadow, example)
        return await shadow(self._ask, release.stable, release.version, bodies, agreement=plan.agreement)

    async def _ask(self, version: str, body: bytes) -> tuple[int, bytes]:
        """Returns status and answer of a replica; a replica that does not answer has not answered well."""
        try:
            application = self._versions.served()[self._model.name][version]
            async with asyncio.timeout(TRIAL_S):
                status, answer = await self._collector.one(application, "trial", body)
            return status, answer
        except TimeoutError:
            return 504, _refusal(f"no answer within {TRIAL_S:g} s")
        except Exception as error:
            logger.warning("%s@v%s: a test request failed: %r", self._model.name, version, error)
            return 503, _refusal(f"no replica answered: {type(error).__name__}")


def _refusal(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def bodies_of(folder: str | None, model: str, most: int, example: str | None) -> list[bytes]:
    """Returns requests like the latest recorded ones; without any, the example. Blocks."""
    drawn, values = random.Random(SEED), values_of(example)
    found = [body_of(inputs, values, drawn) for inputs in (recorded(Path(folder), model, most) if folder else ())]
    bodies = [body for body in found if body is not None]
    return bodies or ([example.encode()] if example else [])


async def _readings(source: EvidenceSource, versions: Versions, model: str, candidate: str, stable: str) -> Readings:
    served = versions.served().get(model, {})
    if candidate not in served or stable not in served:
        return Readings()
    found = await source.collect(served[candidate], served[stable])
    return Readings(found.candidate, found.stable, found.values)
