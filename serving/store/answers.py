"""A store of answers that replicas share, and its implementation in Redis or Valkey."""

from collections.abc import Sequence
from typing import Any, Protocol

from serving.store.connecting import Client, disconnect
from serving.store.keys import Keys
from serving.store.mget import Reader, argument

SCANNED = 1000  # keys that Redis looks at in one step of a search


class AnswerStore(Protocol):
    """Values by key. Each lives for as long as whoever wrote it said, or shorter: the store may drop any of them."""

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Returns the values in the order of their keys, None for each that is not there."""
        ...

    async def write(self, values: Sequence[tuple[str, bytes, int]]) -> None:
        """Keeps values, each a key, the value, and its time to live in ms."""
        ...

    async def clear(self, model: str, tenant: str | None) -> int:
        """Removes the answers of a model, all or those of a tenant. Returns how many."""
        ...

    async def close(self) -> None:
        """Closes connections. The store may be used no more."""
        ...


class RedisAnswerStore:
    """Answers in Redis. Their keys are those of `Keys.answers`, so that they can be found by model and tenant."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client
        self._reader = Reader(client)
        self._keys = keys

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        return await self._reader.read("".join(map(argument, keys)), len(keys))

    async def write(self, values: Sequence[tuple[str, bytes, int]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, value, ttl_ms in values:
            pipeline.set(key, value, px=ttl_ms)
        await pipeline.execute()

    async def clear(self, model: str, tenant: str | None) -> int:
        count = 0
        found: list[bytes] = []
        async for key in self._client.scan_iter(match=self._keys.all_answers(model, tenant), count=SCANNED):
            found.append(key)
            if len(found) == SCANNED:
                count += await self._remove(found)
                found.clear()
        return count + await self._remove(found)

    async def close(self) -> None:
        self._reader.close()
        await disconnect(self._client)

    async def _remove(self, keys: Sequence[bytes]) -> int:
        """Removes keys one by one in one round trip: in a cluster they lie on different nodes."""
        if not keys:
            return 0
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.unlink(key)
        return sum(await pipeline.execute())
