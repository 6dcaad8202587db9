"""Writes rows of features into the online store, for commands: in round trips of bounded size, without time limits."""

from collections.abc import Sequence
from itertools import islice

from serving.features.rows import Row
from serving.features.views import FeatureView
from serving.gateway.features import WRITES_AT_ONCE, writes_of
from serving.store.features import FeatureStore


class OnlineValues:
    """Implements `materialize.OnlineWriter` by a store of single features."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    async def write(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> int:
        writes = writes_of(view, tenant, rows)
        written = 0
        while some := list(islice(writes, WRITES_AT_ONCE)):
            written += sum(await self._store.write(some))
        return written
