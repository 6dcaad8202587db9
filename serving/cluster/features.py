"""Opens the feature store of the settings, in a process of Ray Serve."""

from typing import TYPE_CHECKING

from serving.cluster.redis import connected
from serving.config import Settings

if TYPE_CHECKING:
    from serving.gateway.features import OnlineFeatures

READ_LIMIT_S = 0.01  # for one look-up
WRITE_LIMIT_S = 1.0  # for one round trip that writes; also for opening a connection


def open_features(settings: Settings) -> "OnlineFeatures | None":
    """Returns the feature store, None if no views are declared. Connections are opened when they are first used.

    Raises ModuleNotFoundError with advice without `headway[redis]`."""
    if settings.features is None:
        return None
    # Imported here, so that servers without a feature store need no package for it.
    from random import random

    from models.breaker import Breaker
    from serving.core.clock import SystemClock
    from serving.gateway.features import OnlineFeatures
    from serving.store.features import FeatureStore, NoFeatureStore, RedisFeatureStore
    from serving.store.guard import Guard
    from serving.store.keys import Keys

    reads = Guard(Breaker(random), SystemClock(), READ_LIMIT_S)
    writes = Guard(Breaker(random), SystemClock(), WRITE_LIMIT_S)
    store: FeatureStore = NoFeatureStore()
    if settings.server.redis is not None:
        client, writes = connected(settings.server.redis, WRITE_LIMIT_S, is_bounded=True)
        store = RedisFeatureStore(client, Keys())
    views, header = settings.features.declared(), settings.server.tenant_header
    return OnlineFeatures(views, store, reads=reads, writes=writes, tenant_header=header)
