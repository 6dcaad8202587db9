"""Reads features for many requests at once: all that is asked for in one turn of the event loop is one look-up.

A large one is read in several calls of the store, so that its size is not taken for slowness of the store: that would
end look-ups of everybody else.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import NamedTuple

from serving.features.reading import Found
from serving.store.base import StoreUnavailable
from serving.store.features import FeatureStore, Wanted
from serving.store.guard import Guard

MOST_VALUES = 500  # in one call: a millisecond or two, mostly to decode them
PATIENCE_S = 1.0  # for the connection that a look-up was too short to open


class Asked(NamedTuple):
    """The wish of one caller, and where it waits for the answer."""

    wanted: Sequence[Wanted]
    answer: asyncio.Future[list[list[Found]]]


class Lookups:
    """Shares look-ups of a store. guard: bounds the time of each call."""

    def __init__(self, store: FeatureStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self._asked: list[Asked] = []  # of this turn
        self._tasks: set[asyncio.Task[None]] = set()
        self._retrying = False

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        """Returns what is stored of each wanted feature. Raises StoreUnavailable.

        A caller that is ended takes nothing away from those that share its look-up."""
        if not self._asked:
            self._begin(asyncio.create_task(self._look_up()))
        answer: asyncio.Future[list[list[Found]]] = asyncio.get_running_loop().create_future()
        self._asked.append(Asked(wanted, answer))
        return await answer

    async def connect(self) -> None:
        """Opens a connection, if it can be had in a second: the first look-up may not have the time to."""
        await self._read_patiently([Wanted("", "", "", ("",))])

    async def _look_up(self) -> None:
        asked, self._asked = self._asked, []
        wanted = [one for some in asked for one in some.wanted]
        calls = list(pieces(wanted))
        try:
            parts = [await self._guard.call(partial(self._store.read, some)) for some in calls]
        except StoreUnavailable as error:
            for one in asked:
                if not one.answer.done():
                    one.answer.set_exception(StoreUnavailable(error.kind, str(error)))
            if error.kind == "slow" and not self._retrying:
                self._begin(asyncio.create_task(self._read_patiently(calls[0])))
            return
        found = chain.from_iterable(parts)
        for one in asked:
            part = list(islice(found, len(one.wanted)))
            if not one.answer.done():
                one.answer.set_result(part)

    async def _read_patiently(self, wanted: Sequence[Wanted]) -> None:
        """Reads for nobody: a connection that takes longer to open than a look-up may would never be there. An answer
        says that a store which was silent for a moment is there again."""
        self._retrying = True
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._store.read(wanted)
            self._guard.answered_late()
        except Exception:
            return  # the guard counts and tells failures of look-ups that somebody waits for
        finally:
            self._retrying = False

    def _begin(self, task: asyncio.Task[None]) -> None:
        """Holds a task until it has ended: the loop itself would not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def pieces(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Yields what is wanted in pieces of at most MOST_VALUES features, or of one entity that has more."""
    piece: list[Wanted] = []
    values = 0
    for one in wanted:
        if piece and values + len(one.features) > MOST_VALUES:
            yield piece
            piece, values = [], 0
        piece.append(one)
        values += len(one.features)
    if piece:
        yield piece
