"""The records of keys in an object store: reads what is new, and adds a record after the last one.

Records are `keys/log/000000000001.json` and so on, without a gap. The number makes the order, so clocks do not matter;
creating an object only where there is none makes writers take turns. What a record means is in `keys.py`.
"""

import asyncio
import re
from collections.abc import Callable
from typing import NamedTuple

from serving.gateway.keys import BadRecord, Keys, closed_by, folded
from serving.store.objects import AlreadyExists, NoSuchObject, ObjectStore, ObjectTooLarge, StoreUnreachable

FOLDER = "keys/log"
MOST_RECORD_BYTES = 16 << 10
ATTEMPTS = 10  # of a writer that finds its number taken
AT_A_TIME = 16  # records read at once
MOST_MISSING = 100  # in a row; a number further away is no record's
_NAME = re.compile(rf"{FOLDER}/(\d{{12}})\.json")
Decide = Callable[[Keys], bytes]


class Unreadable(NamedTuple):
    """An object among the records that is none, or none that this release understands. why: without a value of it."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


class Busy(Exception):
    """Other writers were faster each time. Nothing was written."""


class RecordsUnreadable(Exception):
    """A record cannot be read, so none was written: a decision made without it could be wrong."""


class KeyLog:
    """The keys in this store, as far as their records were read.

    keys: by id. unreadable: records that could not be read; readers go on without them, writers do not. foreign:
    objects among the records that are none; nobody minds them. All are replaced, never changed, and only by a reading
    that succeeded.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._last = 0  # the number of the last record read
        self.keys: Keys = {}
        self.unreadable: tuple[Unreadable, ...] = ()
        self.foreign: tuple[Unreadable, ...] = ()

    def __repr__(self) -> str:
        return f"<KeyLog {len(self.keys)} keys of {self._last} records, {len(self.unreadable)} unreadable>"

    async def read_new(self) -> bool:
        """Reads the records that are new, and returns whether there were any. Raises StoreUnreachable.

        Also if the last record has vanished: records are never deleted, so this is not the store it was.
        """
        # The last one again, to see that it is still there.
        paths = await self._store.paths(FOLDER, after=path_of(self._last - 1) if self._last else "")
        if self._last and path_of(self._last) not in paths:
            raise StoreUnreachable(f"{path_of(self._last)} has vanished; is this another store?")
        last, foreign = self._last, []
        for path in paths:
            match = _NAME.fullmatch(path)
            if match and last <= int(match[1]) <= last + MOST_MISSING:
                last = int(match[1])
            else:
                foreign.append(Unreadable(path, "is no record of a key"))
        # A listing can miss a record that is written meanwhile: those in a gap are asked for.
        wanted = range(self._last + 1, last + 1)
        records: list[bytes | Unreadable] = []
        for first in range(0, len(wanted), AT_A_TIME):
            records += await asyncio.gather(*map(self._read, wanted[first : first + AT_A_TIME]))
        keys, unreadable = self.keys, list(self.unreadable)
        for number, record in zip(wanted, records, strict=True):
            if isinstance(record, Unreadable):
                unreadable.append(record)
                continue
            try:
                keys = folded(keys, record)
            except BadRecord as error:
                unreadable.append(Unreadable(path_of(number), str(error)))
                keys = closed_by(record, keys)
        self.keys, self.unreadable, self.foreign = keys, tuple(unreadable), tuple(foreign)
        self._last = last
        return bool(records)

    async def append(self, decide: Decide, *, in_any_case: bool = False) -> None:
        """Adds the record that `decide` makes of the keys as they then are, and reads it back.

        in_any_case: also if a record cannot be read, as a revocation must. Raises what `decide` raises,
        RecordsUnreadable, Busy, and StoreUnreachable; after the last, the record may have been written or not.
        """
        for _ in range(ATTEMPTS):
            await self.read_new()
            if self.unreadable and not in_any_case:
                raise RecordsUnreadable("; ".join(map(str, self.unreadable[:5])))
            record, path = decide(self.keys), path_of(self._last + 1)
            folded(self.keys, record)  # a record that nobody could fold is not written
            try:
                await self._store.create(path, record)
            except AlreadyExists:
                # Another writer's, or ours, if the store's client has tried again after an answer was lost. S3 also
                # says so while another writer is at it, and then there may be none.
                if await self._read(self._last + 1) != record:
                    continue
            await self.read_new()
            return
        raise Busy(f"other writers added records {ATTEMPTS} times; try again")

    async def _read(self, number: int) -> bytes | Unreadable:
        path = path_of(number)
        try:
            return await self._store.get(path, MOST_RECORD_BYTES)
        except NoSuchObject:
            return Unreadable(path, "is missing between others; records must not be deleted")
        except ObjectTooLarge:
            return Unreadable(path, "is too large for a record of a key")


def path_of(number: int) -> str:
    return f"{FOLDER}/{number:012}.json"
