"""The inputs of autoscaling: the readings that replicas report, and the signal computed from them for one window.

Counters only grow, so a report that is lost or late does no harm: the next one covers its time too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The state of one replica at one instant.

    at_ns: the instant, by the replica's own monotonic clock.
    queued: number of waiting requests.
    wait_ns: how long its lanes need for all waiting requests.
    busy_ns: device time used since the start, the sum over all lanes.
    lanes: number of lanes.
    rows: rows computed since the start. row_ns: estimated device time per row in a batch of the best size.
    received, missed: requests since the start, and those of them that expired or were refused because the queue was
        full or no schedule could meet their deadlines.
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
        """Returns the reading as the flat dictionary of numbers that Ray Serve transports."""
        return asdict(self)

    @classmethod
    def from_stats(cls, stats: Mapping[str, float]) -> "Reading | None":
        """Returns the reading in `stats`, or None if a value is missing (not one of our reports, or incomplete)."""
        names = [field.name for field in fields(cls)]
        if any(name not in stats for name in names):
            return None
        return cls(**{name: int(stats[name]) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """The aggregate of all replicas over one window. Replicas that do not report (starting or gone) are left out.

    replicas: number of replicas that reported.
    queued: number of waiting requests, the sum over the replicas.
    wait_ns: expected wait of a new request, the mean over the replicas.
    busy_ratio: share of the window in which a device computed, 0 to 1.
    load_ratio: the share that batches of the best size would have needed. It is far below `busy_ratio` if batching pays
        and few requests arrive: a device that computes single rows is busy, but has capacity for many more.
    received, missed: requests in the window; see `Reading`.
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
        """The number of devices that the window's requests would have kept busy in batches of the best size."""
        return self.load_ratio * self.replicas


def window(pairs: Iterable[tuple[Reading, Reading]]) -> Signal:
    """Returns the signal of a window from the (earlier, later) readings of each replica; empty without any progress."""
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
