"""Keys, records and callers for tests, without a store on disk and without a clock."""

import asyncio
from collections.abc import Iterable

from serving.gateway.callers import Callers
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import NewKey, make_key
from serving.gateway.keys import Key, Keys, Scope, created, folded, revoked, rotated
from serving.testing.clock import ManualClock
from serving.testing.objects import MemoryObjects

S = 1_000_000_000
NOW_S = 1_800_000_000


def fixed(seed: int) -> NewKey:
    """Returns the same key for the same seed."""
    return make_key(lambda count: bytes((seed * 31 + at * 7) % 256 for at in range(count)))


def creation(
    new: NewKey,
    tenant: str = "acme",
    scopes: Iterable[Scope] = (Scope.PREDICT,),
    expires_s: int | None = None,
    now_s: int = NOW_S,
) -> bytes:
    return created(new, tenant=tenant, scopes=scopes, expires_s=expires_s, now_s=now_s, by="test", nonce="n")


def revocation(id: str, now_s: int = NOW_S) -> bytes:
    return revoked(id, now_s=now_s, by="test", nonce="n")


def rotation(old: Key, new: NewKey, until_s: int, expires_s: int | None = None) -> bytes:
    return rotated(old, new, until_s=until_s, expires_s=expires_s, now_s=NOW_S, by="test", nonce="n")


def keys_of(*records: bytes) -> Keys:
    keys: Keys = {}
    for record in records:
        keys = folded(keys, record)
    return keys


def bearer(new: NewKey) -> str:
    return f"Bearer {new.text}"


class Door:
    """Callers over keys in a store in memory, with a clock that tests move. `look` is one turn of the loop."""

    def __init__(self, *records: bytes) -> None:
        self.store = MemoryObjects()
        self.clock = ManualClock(NOW_S * S)
        self.callers = Callers(KeyLog(self.store), calendar=self.clock)
        for record in records:
            self.write(record)

    def write(self, record: bytes) -> None:
        self.store.objects[f"keys/log/{len(self.store.objects) + 1:012}.json"] = record

    def look(self) -> None:
        asyncio.run(self.callers.look(self.clock.now_ns()))
