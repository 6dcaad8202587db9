"""The ledger of requests. Its invariant: each received request has ended exactly once, or is queued, or in flight."""

from collections import Counter
from dataclasses import dataclass, field

from serving.core.outcome import Completed, Outcome


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The counts of a ledger. ended: requests by the name of their outcome."""

    received: int
    queued: int
    in_flight: int
    ended: dict[str, int]


@dataclass(slots=True)
class Ledger:
    """Counts requests by state. `check` raises AssertionError if the invariant does not hold."""

    received: int = 0
    queued: int = 0
    in_flight: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def receive(self) -> None:
        self.received += 1
        self.queued += 1

    def refuse(self, outcome: Outcome, count: int = 1) -> None:
        """Counts requests that were refused at admission and so never queued."""
        self.received += count
        self.ended[type(outcome).__name__] += count

    def depart(self, count: int) -> None:
        """Moves `count` requests of a batch from queued to in flight."""
        self.queued -= count
        self.in_flight += count

    def end_queued(self, outcome: Outcome) -> None:
        self.queued -= 1
        self.ended[type(outcome).__name__] += 1

    def end_in_flight(self, outcome: Outcome) -> None:
        self.in_flight -= 1
        self.ended[type(outcome).__name__] += 1

    def complete(self, count: int) -> None:
        """Counts `count` requests of one batch as completed."""
        self.in_flight -= count
        self.ended[Completed.__name__] += count

    def is_empty(self) -> bool:
        return self.queued == 0 and self.in_flight == 0

    def snapshot(self) -> LedgerSnapshot:
        return LedgerSnapshot(self.received, self.queued, self.in_flight, dict(self.ended))

    def check(self) -> None:
        accounted = self.ended.total() + self.queued + self.in_flight
        if self.received != accounted or self.queued < 0 or self.in_flight < 0:
            raise AssertionError(f"requests lost or answered twice: {self.snapshot()}")
