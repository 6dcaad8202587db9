"""Reads features for many requests at once: all that is asked for in one turn of the event loop is one look-up."""

import asyncio
from collections.abc import Sequence

from serving.features.reading import Found
from serving.store.features import FeatureStore, Wanted
from serving.store.guard import Guard


class Lookups:
    """Shares look-ups of a store. guard: bounds the time of each."""

    def __init__(self, store: FeatureStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self._wanted: list[Wanted] = []
        self._turn: asyncio.Task[list[list[Found]]] | None = None  # not begun yet: others may join
        self._reading: set[asyncio.Task[list[list[Found]]]] = set()

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        """Returns what is stored of each wanted feature. Raises StoreUnavailable.

        A caller that is ended takes nothing away from those that share its look-up."""
        first = len(self._wanted)
        self._wanted += wanted
        if self._turn is None:
            self._turn = self._kept(asyncio.create_task(self._look_up()))
        found = await asyncio.shield(self._turn)
        return found[first : first + len(wanted)]

    async def _look_up(self) -> list[list[Found]]:
        wanted, self._wanted, self._turn = self._wanted, [], None

        def begin() -> asyncio.Future[list[list[Found]]]:
            # Goes on after the guard's time: a connection that takes longer to open would never be there otherwise.
            return asyncio.shield(self._kept(asyncio.create_task(self._store.read(wanted))))

        return await self._guard.call(begin)

    def _kept(self, task: asyncio.Task[list[list[Found]]]) -> asyncio.Task[list[list[Found]]]:
        """Returns the task, and holds it until it has ended: the loop itself would not."""
        self._reading.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[list[list[Found]]]) -> None:
        self._reading.discard(task)
        if not task.cancelled():
            task.exception()  # those that waited long enough have been told; asyncio would log it for the others
