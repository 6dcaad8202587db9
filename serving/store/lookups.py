"""Looks up what many requests ask of a store in few calls: one is under way at a time, and what is asked for meanwhile
shares the next.

So a look-up costs the less, the more of them there are, and a store that hangs holds one connection. What is asked for
in one turn of the event loop shares a call too. A large look-up is several calls, so that its size is not taken for
slowness of the store. Whoever asks waits no longer than the time limit, also for the call to begin; the call goes on
for longer, since a store that was silent for a moment is no failure, and a connection takes time to open.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Generic, Protocol, TypeVar

from serving.store.base import StoreUnavailable
from serving.store.guard import Guard, is_late

_log = logging.getLogger(__name__)
MOST = 500  # values in one call: a millisecond or two, mostly to decode them

Wanted = TypeVar("Wanted")
Value = TypeVar("Value")


class LookUpObserver(Protocol):
    """Is told about calls of the store. All methods are called on the event loop."""

    def looked_up(self, took_ns: int) -> None:
        """Called when the store has answered a call."""

    def unavailable(self, kind: str, count: int) -> None:
        """Called when that many of what was wanted could not be had. kind: why, in one word."""


class LookUps(Generic[Wanted, Value]):
    """Shares calls of one store.

    read: the call. guard: for the calls; its limit is longer than `limit_s`, which is how long whoever asks waits, for
    every call of a look-up. size: how many values one that is wanted consists of.
    """

    def __init__(
        self,
        read: Callable[[Sequence[Wanted]], Awaitable[Sequence[Value]]],
        guard: Guard,
        observer: LookUpObserver,
        *,
        limit_s: float,
        size: Callable[[Wanted], int] = lambda wanted: 1,
    ) -> None:
        self._read_store = read
        self._guard = guard
        self._observer = observer
        self._limit_s = limit_s
        self._size = size
        self._next: _LookUp[Wanted, Value] | None = None
        self._reading: asyncio.Task[None] | None = None

    def ask(self, wanted: Sequence[Wanted], then: Callable[[Sequence[Value] | None], None]) -> None:
        """Calls `then` once with what the store holds of each that is wanted; None: not known in time."""
        if self._next is None:
            self._next = _LookUp(self._limit_s, self._observer)
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
        self._next.add(wanted, then)

    async def find(self, wanted: Sequence[Wanted]) -> Sequence[Value] | None:
        """Returns what the store holds of each that is wanted; None if that is not known in time.

        A caller that is ended takes nothing away from those that share its call."""
        found: asyncio.Future[Sequence[Value] | None] = asyncio.get_running_loop().create_future()

        def tell(values: Sequence[Value] | None) -> None:
            if not found.done():
                found.set_result(values)

        self.ask(wanted, tell)
        return await found

    async def settle(self) -> None:
        """Waits until no call is under way."""
        if self._reading is not None:
            await self._reading

    async def _read(self) -> None:
        """Asks the store until nobody waits."""
        while (look_up := self._next) is not None:
            self._next = None
            if look_up.has_ended:
                continue
            try:
                values = await self._values(look_up)
            except StoreUnavailable as failure:
                look_up.fail(failure.kind)
            else:
                look_up.end(values)
        self._reading = None

    async def _values(self, look_up: "_LookUp[Wanted, Value]") -> Sequence[Value]:
        loop = asyncio.get_running_loop()
        values: list[Value] = []
        for piece in pieces(look_up.wanted, self._size):
            if values:  # the store answers, so that whoever waits may wait for the next call too
                look_up.extend()
                if self._next is not None:
                    self._next.extend()
            began_s = loop.time()
            values += await self._guard.call(partial(self._read_store, piece))
            self._observer.looked_up(int((loop.time() - began_s) * 1e9))
            if look_up.has_ended:
                break
        return values


class _LookUp(Generic[Wanted, Value]):
    """One or more calls, and who waits for them."""

    def __init__(self, limit_s: float, observer: LookUpObserver) -> None:
        self.wanted: list[Wanted] = []
        self.has_ended = False
        self._observer = observer
        self._thens: list[tuple[int, Callable[[Sequence[Value] | None], None]]] = []
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        due_s = self._loop.time() + limit_s
        self._timer = self._loop.call_at(due_s, self._give_up, due_s)

    def add(self, wanted: Sequence[Wanted], then: Callable[[Sequence[Value] | None], None]) -> None:
        if self.has_ended:  # in vain: the call before it takes too long
            self._observer.unavailable("slow", len(wanted))
            then(None)
            return
        self.wanted += wanted
        self._thens.append((len(wanted), then))

    def extend(self) -> None:
        """Lets everybody wait for one limit more from now on."""
        if not self.has_ended:
            self._timer.cancel()
            due_s = self._loop.time() + self._limit_s
            self._timer = self._loop.call_at(due_s, self._give_up, due_s)

    def end(self, values: Sequence[Value]) -> None:
        """Passes the values on, unless the wait has been given up."""
        if self.has_ended:
            return
        self._finish()
        first = 0
        for count, then in self._thens:
            _tell(then, values[first : first + count])
            first += count

    def fail(self, kind: str) -> None:
        """Ends the wait without values, unless it has been given up. kind: why, in one word."""
        if self.has_ended:
            return
        self._finish()
        self._observer.unavailable(kind, len(self.wanted))
        for _, then in self._thens:
            _tell(then, None)

    def _finish(self) -> None:
        self.has_ended = True
        self._timer.cancel()

    def _give_up(self, due_s: float | None) -> None:
        """Ends the wait. If the loop itself was late, the answer may have arrived unread: it gets one limit more.

        due_s: when the limit was reached; None for the second time."""
        now_s = self._loop.time()
        if due_s is not None and is_late(now_s, due_s, self._limit_s):
            self._timer = self._loop.call_at(now_s + self._limit_s, self._give_up, None)
        else:
            self.fail("slow")


def _tell(then: Callable[[Sequence[Value] | None], None], values: Sequence[Value] | None) -> None:
    try:
        then(values)
    except Exception:
        _log.exception("a request could not go on after its look-up")


def pieces(wanted: Sequence[Wanted], size: Callable[[Wanted], int]) -> Iterator[Sequence[Wanted]]:
    """Yields what is wanted in pieces of at most MOST values, or of one that has more; at least one piece."""
    first = values = 0
    for index, one in enumerate(wanted):
        more = size(one)
        if values and values + more > MOST:
            yield wanted[first:index]
            first, values = index, 0
        values += more
    yield wanted[first:]
