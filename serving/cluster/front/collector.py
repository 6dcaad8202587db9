"""Calls a method on every replica of every model, on any machine, with a timeout for replicas that do not answer.

Ray updates the list of replicas in every handle, so no registry of replicas is needed.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from serving.cluster.front.catalog import model_state
from serving.cluster.front.details import Application, serve_details
from serving.core.clock import SystemClock
from serving.core.statistics import ModelStatistics, total
from serving.telemetry.snapshot import ClusterSnapshot, ModelSnapshot
from serving.traffic.routes import model_of

PATIENCE_S = 2.0
FRESH_NS = 1_000_000_000

logger = logging.getLogger("ray.serve")


@dataclass(slots=True)
class Replies:
    """The replies of one model's replicas, in no order, and the number of replicas that did not answer in time."""

    replies: list[Any] = field(default_factory=list)
    silent: int = 0


class Collector:
    """Calls methods of replicas, and caches the snapshot of all models for a second.

    versions: the version that every application serves, by the application's name. They may be replaced."""

    def __init__(self, versions: Mapping[str, str], *, patience_s: float = PATIENCE_S) -> None:
        self.versions = versions
        self._patience_s = patience_s
        self._handles: dict[str, DeploymentHandle] = {}
        self._known: ClusterSnapshot | None = None
        self._known_ns = 0
        self._looking = asyncio.Lock()

    def applications_of(self, model: str) -> list[str]:
        return [application for application in self.versions if model_of(application) == model]

    async def ask(self, method: str, *arguments: Any, of: Sequence[str] | None = None) -> dict[str, Replies]:
        """Calls `method` on every replica of these applications (None: of all), and returns the replies by application.

        Waits for the slowest replica, at most `patience_s`. An application without replicas has no replies."""
        names = list(self.versions if of is None else of)
        answers = await asyncio.gather(*(self._ask(name, method, arguments) for name in names))
        return dict(zip(names, answers, strict=True))

    async def one(self, application: str, method: str, *arguments: Any) -> Any:
        """Calls `method` on one replica of an application, and returns its reply. Raises what Ray raises."""
        if application not in self._handles:
            self._handles[application] = await asyncio.to_thread(serve.get_app_handle, application)
        return await self._handles[application].options(method_name=method).remote(*arguments)

    def forget(self) -> None:
        """Drops all handles and the cache after a load or unload: the handle of an unloaded model would wait for
        replicas."""
        self._handles.clear()
        self._known = None

    async def statistics(self) -> dict[str, ModelStatistics]:
        """Returns the statistics of each application, summed over its replicas."""
        answers = await self.ask("statistics")
        return {name: total(answer.replies) for name, answer in answers.items()}

    async def snapshot(self) -> ClusterSnapshot:
        """Returns a snapshot of all models, at most a second old."""
        async with self._looking:
            now_ns = SystemClock.now_ns()
            if self._known is None or now_ns - self._known_ns > FRESH_NS:
                answers, found = await asyncio.gather(self.ask("snapshot"), asyncio.to_thread(serve_details))
                models = tuple(
                    model_snapshot(name, self.versions[name], found, answer)
                    for name, answer in answers.items()
                    if name in self.versions
                )
                self._known_ns = SystemClock.now_ns()
                self._known = ClusterSnapshot(models=models, took_ns=self._known_ns - now_ns)
            return self._known

    async def _ask(self, name: str, method: str, arguments: tuple[Any, ...]) -> Replies:
        until_s = asyncio.get_running_loop().time() + self._patience_s
        try:
            async with asyncio.timeout_at(until_s):
                if name not in self._handles:
                    self._handles[name] = await asyncio.to_thread(serve.get_app_handle, name)
                response = self._handles[name].broadcast(method, *arguments)
                # Ray's own method of waiting loses all answers if one is late, which is when they are needed most.
                calls = await response._fetch_replica_results_async()
        except Exception as error:  # no such application yet, or none of its replicas runs
            self._handles.pop(name, None)
            logger.info("%s: no replica to ask: %r", name, error)
            return Replies()
        answers = Replies()
        for reply in await asyncio.gather(*(_reply(call, until_s) for call in calls), return_exceptions=True):
            if isinstance(reply, BaseException):
                logger.info("%s: a replica did not answer %s: %r", name, method, reply)
                answers.silent += 1
            else:
                answers.replies.append(reply)
        return answers


async def _reply(call: Any, until_s: float) -> Any:
    async with asyncio.timeout_at(until_s):
        return await call.get_async()


def model_snapshot(name: str, version: str, found: Mapping[str, Application] | None, answers: Replies) -> ModelSnapshot:
    application = found.get(name) if found else None
    deployment = next(iter(application.deployments.values()), None) if application else None
    replicas = tuple(answers.replies)
    running = sum(replica.state == "RUNNING" for replica in deployment.replicas) if deployment else len(replicas)
    state = model_state(application, running=running)
    return ModelSnapshot(
        name=model_of(name),
        application=name,
        version=version,
        state=state.name,
        reason=state.reason,
        running=running,
        wanted=deployment.target_num_replicas if deployment else 0,
        limit=deployment.max_replicas if deployment else None,
        silent=answers.silent,
        replicas=replicas,
    )


def targets(http_port: int) -> list[dict[str, Any]]:
    """Returns targets for Prometheus' HTTP service discovery: one per machine, for the replicas on it. Blocks."""
    alive = sorted({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})
    return [{"targets": [f"{node}:{http_port}"], "labels": {"node": node, "__param_node": node}} for node in alive]
