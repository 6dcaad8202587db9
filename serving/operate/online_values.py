"""Writes rows of features into the online store of the settings, for commands, which have time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice

from serving.config import Settings
from serving.features.rows import Row
from serving.features.views import FeatureView
from serving.gateway.features import WRITES_AT_ONCE, writes_of
from serving.store.base import StoreUnavailable
from serving.store.features import FeatureStore
from serving.store.guard import Guard

LIMIT_S = 30.0  # for one round trip


class OnlineValues:
    """Implements `materialize.OnlineWriter` by a store of single features."""

    def __init__(self, store: FeatureStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard

    async def write(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> int:
        """Writes values in round trips of bounded size. Returns how many were written. Raises StoreUnavailable."""
        writes = writes_of(view, tenant, rows)
        written = 0
        while some := list(islice(writes, WRITES_AT_ONCE)):
            written += sum(await self._guard.call(partial(self._store.write, some)))
        return written


@asynccontextmanager
async def online_values(settings: Settings) -> AsyncIterator[OnlineValues]:
    """Connects to the Redis of the settings. Raises StoreUnavailable if they name none, and ModuleNotFoundError."""
    from serving.cluster.redis import connected
    from serving.store.features import RedisFeatureStore
    from serving.store.keys import Keys

    if settings.server.redis is None:
        raise StoreUnavailable("none", "no Redis is known; set server.redis, or leave it alone with --offline-only")
    client, guard = connected(settings.server.redis, LIMIT_S)
    store = RedisFeatureStore(client, Keys())
    try:
        yield OnlineValues(store, guard)
    finally:
        await store.close()
