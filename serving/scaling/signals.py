"""What scaling goes by: counters that each replica reports, and what they say of one window of time, all together.

Counters only grow, so a report that got lost or came late costs nothing: the next one covers its time too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One replica at one instant of its own clock.

    queued: requests that wait now.
    wait_ns: how long its lanes need for what waits now.
    busy_ns: device time used since the start, of all lanes together.
    lanes: how many of them there are.
    rows: computed since the start; row_ns: device time for one in a batch of the best size, as learned by now.
    received, missed: requests since the start, and those of them for which there was no time or no place in the queue.
    """

    at_ns: int
    queued: int
    wait_ns: int
    busy_ns: int
    lanes: int
    rows: int
    row_ns: int
    received: int
    missed: int

    def as_stats(self) -> dict[str, int | float]:
        """As Ray Serve carries it."""
        return asdict(self)

    @classmethod
    def from_stats(cls, stats: Mapping[str, float]) -> "Reading | None":
        """None where a value is missing: no report of ours, or not the whole of it."""
        names = [field.name for field in fields(cls)]
        if any(name not in stats for name in names):
            return None
        return cls(**{name: int(stats[name]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What scaling saw in one window. Replicas that report nothing (they start, or are gone) are not in it.

    replicas: how many reported.
    queued: requests that wait, all together.
    wait_ns: what a newcomer may expect to wait, the mean of the replicas.
    busy_ratio: share of the window in which a device computed, 0 to 1.
    load_ratio: the share it would have needed with batches of the best size. Far less than `busy_ratio` where batching
        pays and few requests come: a device that computes one row after the other is busy, and has room for many more.
    received, missed: requests of the window; see `Reading`.
    """

    replicas: int = 0
    queued: int = 0
    wait_ns: int = 0
    busy_ratio: float = 0.0
    load_ratio: float = 0.0
    received: int = 0
    missed: int = 0

    @property
    def work(self) -> float:
        """How many devices the window's requests would have filled, in batches of the best size."""
        return self.load_ratio * self.replicas


def window(pairs: Iterable[tuple[Reading, Reading]]) -> Signal:
    """What happened between the two readings of each replica."""
    spans = [(before, after) for before, after in pairs if after.at_ns > before.at_ns]
    if not spans:
        return Signal()
    return Signal(
        replicas=len(spans),
        queued=sum(after.queued for _, after in spans),
        wait_ns=sum(after.wait_ns for _, after in spans) // len(spans),
        busy_ratio=sum(_busy_ratio(before, after) for before, after in spans) / len(spans),
        load_ratio=sum(_load_ratio(before, after) for before, after in spans) / len(spans),
        received=sum(after.received - before.received for before, after in spans),
        missed=sum(after.missed - before.missed for before, after in spans),
    )


def _busy_ratio(before: Reading, after: Reading) -> float:
    return min(1.0, (after.busy_ns - before.busy_ns) / (after.lanes * (after.at_ns - before.at_ns)))


def _load_ratio(before: Reading, after: Reading) -> float:
    needed_ns = (after.rows - before.rows) * after.row_ns
    return min(_busy_ratio(before, after), needed_ns / (after.lanes * (after.at_ns - before.at_ns)))
