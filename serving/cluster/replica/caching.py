"""The prediction cache of one replica: opens it, counts for it, and clears it in all replicas of all versions."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import random
from typing import TYPE_CHECKING, Any

from models.fingerprint import fingerprint
from serving.api.faults import CallFailed, Fault
from serving.cluster.front.collector import Collector
from serving.cluster.redis import connected
from serving.config import RedisSettings, Settings
from serving.protocol.errors import BadMessage
from serving.runtime.engine import Engine
from serving.telemetry.cache import CacheCounts, CacheRecorder
from serving.telemetry.recorder import Recorder
from serving.traffic.routes import model_of

if TYPE_CHECKING:
    from serving.cache.backend import CachedBackend
    from serving.cache.shared import SharedAnswers

STORE_LIMIT_S = 1.0  # for one call of Redis, also for opening a connection; requests wait for a shorter time


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """The settings of a model's cache. redis: where replicas share answers; None: each has its own only."""

    ttl_s: float
    memory_mb: int
    redis: RedisSettings | None = None


def caching(settings: Settings, application: str) -> Caching | None:
    """Returns the settings of the cache of this application's model, None without one."""
    cache = settings.applications()[application].cache
    if cache is None:
        return None
    return Caching(ttl_s=cache.ttl_s, memory_mb=cache.memory_mb, redis=settings.server.redis)


class ReplicaCache:
    """The cache of one replica.

    siblings: asks replicas of applications. running: returns the names of the applications of the server, and blocks.
    """

    def __init__(
        self,
        backend: "CachedBackend",
        shared: "SharedAnswers | None",
        recorder: CacheRecorder,
        siblings: Collector,
        model: str,
        running: Callable[[], Iterable[str]],
    ) -> None:
        self.backend = backend
        self._shared = shared
        self._recorder = recorder
        self._siblings = siblings
        self._model = model
        self._running = running

    def counts(self) -> CacheCounts:
        return self._recorder.counts(len(self.backend.kept), self.backend.kept.bytes)

    async def clear(self, changes: Mapping[str, Any]) -> dict[str, int]:
        """Clears the cache of all replicas of all versions, and the shared store. changes: `tenant`, to clear only the
        answers of one.

        Returns how many answers were removed. Raises BadMessage, or CallFailed if a replica or the store does not
        answer: then some answers may be left."""
        tenant = _tenant(changes)
        versions = [name for name in await asyncio.to_thread(self._running) if model_of(name) == self._model]
        # First no replica may hold or compute an answer that it would store again afterwards. A replica may have read
        # others from the shared store until that was cleared; so all are asked twice.
        dropped = await self._clear_siblings(versions, tenant)
        stored = 0
        if self._shared is not None:
            from serving.store.base import StoreUnavailable

            try:
                stored = await self._shared.clear(self._model, tenant)
            except StoreUnavailable as failure:
                text = f"Redis does not answer, so answers may be left there: {failure}"
                raise CallFailed(Fault(503, text)) from failure
            dropped += await self._clear_siblings(versions, tenant)
        return {"in_memory": dropped, "shared": stored}

    async def _clear_siblings(self, versions: list[str], tenant: str | None) -> int:
        answers = (await self._siblings.ask("clear_cache", tenant, of=versions)).values()
        replies = [removed for answer in answers for removed in answer.replies]
        silent = sum(answer.silent for answer in answers)
        if silent or not replies:
            raise CallFailed(Fault(503, f"{silent} replicas did not answer, {len(replies)} did"))
        return sum(replies)


def _tenant(changes: Mapping[str, Any]) -> str | None:
    for name in changes:
        if name != "tenant":
            raise BadMessage("is unknown; the only field is `tenant`", path=name[:100])
    tenant = changes.get("tenant")
    if tenant is not None and not isinstance(tenant, str):
        raise BadMessage("must be a text", path="tenant")
    return tenant


async def open_cache(
    caching: Caching | None,
    engine: Engine,
    recorder: Recorder,
    siblings: Collector,
    running: Callable[[], Iterable[str]],
) -> ReplicaCache | None:
    """Returns the cache of this replica, None without one. Raises ModelNotLoadable, and ModuleNotFoundError with advice
    without `headway[redis]`."""
    if caching is None:
        return None
    # Imported here, so that models without a cache do not pay for it.
    from serving.cache.backend import CachedBackend
    from serving.store.keys import Keys

    def row_ns() -> float:
        return recorder.counts().batch_ns.total / max(1, engine.statistics().inference_count)

    counts = CacheRecorder(recorder, row_ns)
    keys = Keys()
    shared = None
    if caching.redis is not None:
        from serving.cache.shared import SharedAnswers
        from serving.store.answers import RedisAnswerStore

        client, guard = connected(caching.redis, STORE_LIMIT_S, is_bounded=True)
        shared = SharedAnswers(RedisAnswerStore(client, keys), guard, counts)
    spec = engine.spec
    backend = CachedBackend(
        engine,
        model=spec.name,
        outputs=[output.name for output in spec.outputs],
        fingerprint=await asyncio.to_thread(fingerprint, spec),
        ttl_s=caching.ttl_s,
        most_bytes=caching.memory_mb << 20,
        observer=counts,
        random=random,
        shared=shared,
        keys=keys,
    )
    return ReplicaCache(backend, shared, counts, siblings, spec.name, running)
