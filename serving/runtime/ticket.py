"""The caller's handle on a submitted request, and the phase of that request.

A ticket is also the request that the core queues and batches: one object for both saves a look-up at every step.
"""

import logging
from asyncio import CancelledError, Future, get_running_loop
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any

from serving.core.outcome import Outcome
from serving.core.request import Request

_log = logging.getLogger(__name__)


class Phase(Enum):
    """The phase of an accepted request. Phases may be skipped, but never go backwards."""

    PREPARING = "its model's own `prepare` runs, or it waits for that"
    QUEUED = "it waits for its batch"
    IN_FLIGHT = "its batch was cut"
    ENDED = "it has its outcome"


# In Python 3.11, looking up a member in its class costs more than a call; every request needs several.
PREPARING, QUEUED, IN_FLIGHT, ENDED = Phase


class Ticket(Request):
    """A submitted request, settled exactly once. Use it on the event loop.

    Awaiting it returns the `Outcome`. It raises only CancelledError, if the awaiting task is cancelled; that withdraws
    the request. A caller without a task registers a callback with `then` instead.
    """

    __slots__ = ("_then", "_waiter", "_withdraw", "outcome", "phase")

    def __init__(
        self,
        id: int,
        tenant: str,
        rows: int,
        arrived_ns: int,
        deadline_ns: int,
        expires_ns: int,
        rank_ns: int,
        payload: object,
        withdraw: "Callable[[Ticket], None]",
    ) -> None:
        # Written out instead of calling the constructor of the dataclass: this runs for every request.
        self.id = id
        self.tenant = tenant
        self.rows = rows
        self.length = 1
        self.group = None
        self.arrived_ns = arrived_ns
        self.deadline_ns = deadline_ns
        self.expires_ns = expires_ns
        self.rank_ns = rank_ns
        self.payload = payload
        self.phase = QUEUED
        self.outcome: Outcome | None = None
        self._withdraw = withdraw
        self._then: Callable[[Outcome], None] | None = None
        self._waiter: Future[None] | None = None

    def __await__(self) -> Generator[Any, None, Outcome]:
        if self.outcome is None:
            if self._waiter is None:
                self._waiter = get_running_loop().create_future()
            try:
                yield from self._waiter
            except CancelledError:
                self.cancel()
                raise
        assert self.outcome is not None
        return self.outcome

    def then(self, callback: Callable[[Outcome], None]) -> None:
        """Registers the one callback, see `core.backend.Submitted.then`."""
        if self.outcome is None:
            assert self._then is None, f"{self.id} has a callback already"
            self._then = callback
        else:
            callback(self.outcome)

    def cancel(self) -> None:
        """Withdraws the request: it ends as Cancelled unless it has ended already."""
        if self.phase is not ENDED:
            self._withdraw(self)

    def done(self) -> bool:
        return self.outcome is not None

    def settle(self, outcome: Outcome) -> None:
        """Sets the outcome, calls the callback and wakes the awaiting task.

        An exception of the callback is logged, so that it does not affect the other requests of the batch.
        """
        assert self.outcome is None, f"{self.id} answered twice"
        self.phase = ENDED
        self.outcome = outcome
        if self._then is not None:
            try:
                self._then(outcome)
            except Exception:
                _log.exception("the callback of a request failed")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
