"""The current values of features in Redis or Valkey: one key each, `headway:1:feature:tenant:entity:id:feature`.

A value is msgpack of the array [event time in ms since 1970, version of the view, value]: true or false, a whole
number, a float of 64 bits, a text, or nil for one that is known to be missing. Another layout of either gets another
number in the key (`keys.VERSION`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import msgspec

from serving.features.reading import Found, Reason, Stored
from serving.store.base import StoreUnavailable
from serving.store.connecting import Client, disconnect
from serving.store.keys import Keys
from serving.store.mget import Reader
from serving.store.scripting import Call, run_scripts
from serving.store.scripts import NEWER

pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Stored).decode


@dataclass(frozen=True, slots=True)
class Wanted:
    """The features that are wanted of one entity."""

    tenant: str
    entity: str
    id: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """A new value of one feature. keep_ms: how long it is kept from now on."""

    tenant: str
    entity: str
    id: str
    feature: str
    value: Stored
    keep_ms: int


class FeatureStore(Protocol):
    """The latest value of every feature, by event time."""

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        """Returns what is stored of each wanted feature, MISSING or UNREADABLE where there is no value."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Writes each value, one by one in their order, unless one with a later event time is stored. Returns whether
        it did. After an exception nobody knows which were written; the same writes again do no harm."""
        ...

    async def close(self) -> None:
        """Closes connections. The store may be used no more."""
        ...


class RedisFeatureStore:
    """The features of all tenants in one Redis."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._reader = Reader(client)
        self._keys = keys

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        arguments = [self._keys.feature_arguments(one.tenant, one.entity, one.id, one.features) for one in wanted]
        values = await self._reader.read("".join(arguments), sum(len(one.features) for one in wanted))
        found, first = [], 0
        for one in wanted:
            found.append(_all_unpacked(values[first : first + len(one.features)]))
            first += len(one.features)
        return found

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        answers = await run_scripts(self._client, [self._call(write) for write in writes])
        for answer in answers:
            if answer not in (0, 1):
                raise StoreUnavailable("garbage", f"an answer that is neither 0 nor 1: {str(answer)[:80]}")
        return [answer == 1 for answer in answers]

    async def close(self) -> None:
        self._reader.close()
        await disconnect(self._client)

    def _call(self, write: Write) -> Call:
        (key,) = self._keys.features(write.tenant, write.entity, write.id, (write.feature,))
        return NEWER, key, [pack(write.value), write.value.event_ms, write.keep_ms]


class NoFeatureStore:
    """The store of a server without a Redis: it answers nothing."""

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        self._refuse()

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        self._refuse()

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    def _refuse(self) -> NoReturn:
        raise StoreUnavailable("none", "this server has no Redis; the setting server.redis names one")


def unpacked(value: object) -> Found:
    """Returns the value in the bytes that Redis holds; MISSING for None, UNREADABLE for anything else."""
    if value is None:
        return Reason.MISSING
    try:
        return _unpack(value)  # type: ignore[arg-type]  # what is no bytes raises too
    except (msgspec.MsgspecError, TypeError, ValueError):
        return Reason.UNREADABLE


def _all_unpacked(values: Sequence[bytes | None]) -> list[Found]:
    missing = Reason.MISSING
    try:  # without a call for each, which costs as much as to decode it
        return [missing if value is None else _unpack(value) for value in values]
    except (msgspec.MsgspecError, ValueError):
        return [unpacked(value) for value in values]
