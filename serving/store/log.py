"""A log in an object store: reads the records that are new, and adds a record after the last one.

Records are `<folder>/000000000001.json` and so on, without a gap, never changed or deleted. The number makes the order,
so clocks do not matter; creating an object only where there is none makes writers take turns. What a record means is
the owner's: the log is given the fold of a record into its state. Used for keys (`serving/gateway/key_log.py`) and for
the history of a model (`serving/registry/log.py`).
"""

import asyncio
import re
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from serving.store.objects import AlreadyExists, NoSuchObject, ObjectStore, ObjectTooLarge, StoreUnreachable

State = TypeVar("State")
MOST_RECORD_BYTES = 16 << 10
ATTEMPTS = 10  # of a writer that finds its number taken
AT_A_TIME = 16  # records read at once
MOST_MISSING = 100  # in a row; a number further away is no record's


class BadRecord(ValueError):
    """The record cannot be understood, or contradicts those before it. The text says why, and quotes no value."""


class Unreadable(NamedTuple):
    """An object among the records that is none, or none that this release understands. why: without a value of it."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


class Busy(Exception):
    """Other writers were faster each time. Nothing was written."""


class RecordsUnreadable(Exception):
    """A record cannot be read, so nothing was decided: a decision made without it could be wrong."""


class RecordTooLarge(ValueError):
    """The record is larger than any that is read. Nothing was written."""


def _unchanged(state: State, record: bytes) -> State:
    return state


class Log(Generic[State]):
    """The records in this folder of a store, as far as they were read, and the state that follows from them.

    empty: the state without a record. fold: returns the state after a record; raises BadRecord. beside: returns the
    state after a record that could not be folded. of: what a record is of, for people. most_bytes: of a record.
    state: is replaced, never changed, and only by a reading that succeeded. unreadable: records that could not be
    read; readers go on without them, writers do not. foreign: objects among the records that are none; nobody minds
    them. last: the number of the last record read, 0 before the first.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: str,
        empty: State,
        fold: Callable[[State, bytes], State],
        *,
        of: str,
        beside: Callable[[State, bytes], State] = _unchanged,
        most_bytes: int = MOST_RECORD_BYTES,
    ) -> None:
        self._store = store
        self._folder = folder
        self._fold = fold
        self._beside = beside
        self._of = of
        self._most_bytes = most_bytes
        self._reading = asyncio.Lock()
        self._name = re.compile(rf"{re.escape(folder)}/(\d{{12}})\.json")
        self.last = 0
        self.state = empty
        self.unreadable: tuple[Unreadable, ...] = ()
        self.foreign: tuple[Unreadable, ...] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._folder}: {self.last} records, {len(self.unreadable)} unreadable>"

    def path_of(self, number: int) -> str:
        return f"{self._folder}/{number:012}.json"

    async def read_new(self) -> bool:
        """Reads the records that are new, and returns whether there were any. Raises StoreUnreachable.

        Also if the last record has vanished: records are never deleted, so this is not the store it was. Tasks take
        turns, or two that read the same record would both fold it.
        """
        async with self._reading:
            return await self._read_new()

    async def _read_new(self) -> bool:
        # The last one again, to see that it is still there.
        paths = await self._store.paths(self._folder, after=self.path_of(self.last - 1) if self.last else "")
        if self.last and self.path_of(self.last) not in paths:
            raise StoreUnreachable(f"{self.path_of(self.last)} has vanished; is this another store?")
        last, foreign = self.last, []
        for path in paths:
            match = self._name.fullmatch(path)
            if match and last <= int(match[1]) <= last + MOST_MISSING:
                last = int(match[1])
            else:
                foreign.append(Unreadable(path, f"is no record of {self._of}"))
        # A listing can miss a record that is written meanwhile: those in a gap are asked for.
        wanted = range(self.last + 1, last + 1)
        records: list[bytes | Unreadable] = []
        for first in range(0, len(wanted), AT_A_TIME):
            records += await asyncio.gather(*map(self._read, wanted[first : first + AT_A_TIME]))
        state, unreadable = self.state, list(self.unreadable)
        for number, record in zip(wanted, records, strict=True):
            if isinstance(record, Unreadable):
                unreadable.append(record)
                continue
            try:
                state = self._fold(state, record)
            except BadRecord as error:
                unreadable.append(Unreadable(self.path_of(number), str(error)))
                state = self._beside(state, record)
        self.state, self.unreadable, self.foreign = state, tuple(unreadable), tuple(foreign)
        self.last = last
        return bool(records)

    def check_readable(self) -> None:
        """Raises RecordsUnreadable if a record could not be read, so that the state may be wrong."""
        if self.unreadable:
            raise RecordsUnreadable("; ".join(map(str, self.unreadable[:5])))

    async def append(self, decide: Callable[[State], bytes], *, in_any_case: bool = False) -> int:
        """Adds the record that `decide` makes of the state as it then is, reads it back, and returns its number.

        A writer that was too late decides again, about the state with the winner's record in it. Records of two writers
        must differ, say by a nonce. in_any_case: also if a record cannot be read, as a revocation must. Raises what
        `decide` raises, RecordsUnreadable, RecordTooLarge, Busy, and StoreUnreachable; after the last, the record may
        have been written or not.
        """
        for _ in range(ATTEMPTS):
            await self.read_new()
            if not in_any_case:
                self.check_readable()
            number = self.last + 1
            record = decide(self.state)
            self._fold(self.state, record)  # a record that nobody could fold is not written
            if len(record) > self._most_bytes:
                raise RecordTooLarge(f"it would take {len(record):,} bytes, and {self._most_bytes:,} can be read again")
            try:
                await self._store.create(self.path_of(number), record)
            except AlreadyExists:
                # Another writer's, or ours, if the store's client has tried again after an answer was lost. S3 also
                # says so while another writer is at it, and then there may be none.
                if await self._read(number) != record:
                    continue
            await self.read_new()
            return number
        raise Busy(f"other writers added records {ATTEMPTS} times; try again")

    async def _read(self, number: int) -> bytes | Unreadable:
        path = self.path_of(number)
        try:
            return await self._store.get(path, self._most_bytes)
        except NoSuchObject:
            return Unreadable(path, "is missing between others; records must not be deleted")
        except ObjectTooLarge:
            return Unreadable(path, f"is too large for a record of {self._of}")
