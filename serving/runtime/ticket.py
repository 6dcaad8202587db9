"""The caller's handle on a submitted request, and the phase of that request.

A ticket is also the request that the core queues and batches: one object for both saves a look-up at every step.
"""

from asyncio import Future
from collections.abc import Callable
from enum import Enum

from serving.core.outcome import Outcome
from serving.core.request import Request
from serving.runtime.settling import Settling


class Phase(Enum):
    """The phase of an accepted request. Phases may be skipped, but never go backwards."""

    PREPARING = "its model's own `prepare` runs, or it waits for that"
    QUEUED = "it waits for its batch"
    IN_FLIGHT = "its batch was cut"
    ENDED = "it has its outcome"


# In Python 3.11, looking up a member in its class costs more than a call; every request needs several.
PREPARING, QUEUED, IN_FLIGHT, ENDED = Phase


class Ticket(Request, Settling):
    """A request that was submitted to an engine."""

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

    def cancel(self) -> None:
        """Withdraws the request: it ends as Cancelled unless it has ended already."""
        if self.phase is not ENDED:
            self._withdraw(self)

    def done(self) -> bool:
        return self.outcome is not None

    def settle(self, outcome: Outcome) -> None:
        self.phase = ENDED
        Settling.settle(self, outcome)
