"""The interface of a shared store of quota counters, whatever it is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.traffic.sharing import Ask, Grant

PRESENT_NS = 10_000_000_000  # a replica counts as present for so long after it was last heard of


class StoreUnavailable(Exception):
    """The store gave no usable answer in time. kind: in one word why, the same for the same cause."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Renewal:
    """The answer to one turn of a replica: a grant for each Ask, in their order, and how many replicas are present."""

    grants: Sequence[Grant]
    replicas: int


class QuotaStore(Protocol):
    """Counters that all replicas share.

    Each Ask is booked as a whole or not at all; several in one call are booked one by one. After an exception nobody
    knows which of them were booked. Days and paces go by the store's own clock.
    """

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        """Books the asks of a replica in one round trip, and notes that it is present."""
        ...

    async def leave(self, replica: str, asks: Sequence[Ask]) -> None:
        """Books the last asks of a replica, which is no longer present."""
        ...

    async def close(self) -> None:
        """Closes connections. The store may be used no more."""
        ...
