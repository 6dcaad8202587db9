"""Counts the events of an engine's requests and batches as plain numbers, independent of the names of metrics."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serving.core.batch import Batch
from serving.core.errors import BatchTimeout, InvalidInput, LaneLost, ModelError, OutOfMemory
from serving.core.octaves import bucket_of
from serving.core.outcome import Cancelled, Expired, Failed, Outcome, Reason, Rejected, Timings
from serving.core.request import Request
from serving.core.statistics import Duration
from serving.telemetry.histogram import Histogram
from serving.telemetry.tenants import TenantCounts, TenantTable

MS = 1_000_000
# Dense in the range of interactive budgets, with a bound at 200 ms, which the alert on latency uses.
DURATION_NS = tuple(
    int(ms * MS) for ms in (0.5, 1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 1000, 2500, 5000, 10000, 30000)
)
BATCH_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
BOUND_SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _durations() -> Histogram:
    return Histogram(DURATION_NS)


@dataclass(slots=True)
class Counts:
    """The counts since the replica started.

    ended: requests that were not completed, by (outcome, reason); the reason is "" if an outcome has only one.
    cuts: batches by the name of their `CutReason`.
    first_ns, answers: for generating models, the time from a request's arrival to its first answer, and the number of
        answers.
    copied_in, copied_out: time of copying batches to the device and back, counted once for each request of a batch.
    cells_asked, cells_computed: rows times length, without and with padding.
    bound_shares: the time of batches divided by their planned time.
    """

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    request_ns: Histogram = field(default_factory=_durations)
    queue_ns: Histogram = field(default_factory=_durations)
    batch_ns: Histogram = field(default_factory=_durations)
    batch_rows: Histogram = field(default_factory=lambda: Histogram(BATCH_ROWS))
    bound_shares: Histogram = field(default_factory=lambda: Histogram(BOUND_SHARES))
    cuts: Counter[str] = field(default_factory=Counter)
    first_ns: Histogram = field(default_factory=_durations)
    answers: int = 0
    copied_in: Duration = field(default_factory=Duration)
    copied_out: Duration = field(default_factory=Duration)
    cells_asked: int = 0
    cells_computed: int = 0
    lanes_lost: int = 0
    limit_halvings: int = 0
    tenants: dict[str, TenantCounts] = field(default_factory=dict)


class Recorder:
    """A `core.observer.Observer` that counts. tenants: the tenants named in the settings.

    latency: while it is not None, answered requests by bucket of `core.octaves`, for the judge of a release."""

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        self._counts = Counts()
        self._tenants = TenantTable(tenants)
        self.latency: Counter[int] | None = None

    def counts(self) -> Counts:
        """Returns the live counts, not a copy."""
        self._counts.tenants = self._tenants.snapshot()
        return self._counts

    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        waits_ns.sort()
        self._counts.queue_ns.add_sorted(waits_ns)
        computed_ns = timings.prepare_ns + timings.compute_ns + timings.finish_ns
        self._counts.request_ns.add_sorted(waits_ns, computed_ns)
        if self.latency is not None:
            for wait_ns in waits_ns:
                self.latency[bucket_of(wait_ns + computed_ns)] += 1
        tenants = {request.tenant for request in requests}
        if len(tenants) == 1:
            self._tenants.count(requests[0].tenant, len(requests))
        else:
            for tenant, count in Counter(request.tenant for request in requests).items():
                self._tenants.count(tenant, count)

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        self._counts.ended[named(outcome)] += 1
        self._tenants.count(tenant, 1)

    def request_cached(self, tenant: str) -> None:
        """Counts a request that was answered from the cache, for its tenant."""
        self._tenants.count(tenant, 1)

    def requests_kept_out(self, count: int) -> None:
        self._counts.ended[named(Rejected(Reason.OVERLOAD, 0))] += count

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        counts = self._counts
        counts.queue_ns.add(queue_ns)
        counts.request_ns.add(total_ns)
        if self.latency is not None:
            self.latency[bucket_of(total_ns)] += 1
        if answers:
            counts.first_ns.add(first_ns)
        counts.answers += answers
        self._tenants.count(tenant, 1)

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        counts = self._counts
        if copied_in_ns or copied_out_ns:
            requests = len(batch.requests)
            counts.copied_in.add(copied_in_ns * requests, requests)
            counts.copied_out.add(copied_out_ns * requests, requests)
        counts.batch_ns.add(occupied_ns)
        counts.batch_rows.add(batch.rows)
        planned_ns = batch.finish_ns - batch.start_ns
        if planned_ns > 0:
            counts.bound_shares.add(occupied_ns / planned_ns)
        counts.cuts[batch.reason.name] += 1
        counts.cells_computed += batch.padded_rows * batch.length
        asked = batch.rows
        if batch.length > 1:
            asked = sum(request.rows * min(request.length, batch.length) for request in batch.requests)
        counts.cells_asked += asked
        tenants = {request.tenant for request in batch.requests}
        if len(tenants) == 1:
            self._tenants.charge(batch.requests[0].tenant, occupied_ns)
        else:
            for request in batch.requests:
                self._tenants.charge(request.tenant, occupied_ns * request.rows / batch.rows)

    def lane_lost(self, lane_index: int, why: str) -> None:
        self._counts.lanes_lost += 1

    def batch_limit_halved(self, largest_rows: int) -> None:
        self._counts.limit_halvings += 1


def snake(name: str) -> str:
    """Converts CamelCase to snake_case."""
    return _CAPITAL.sub("_", name).lower()


_ERRORS = (ModelError, InvalidInput, LaneLost, BatchTimeout, OutOfMemory)
# Exported as zero from the start, because `rate` does not see the first failure of a series that begins with it.
ENDINGS: tuple[tuple[str, str], ...] = (
    *(("rejected", reason.name.lower()) for reason in Reason),
    *(("failed", snake(error.__name__)) for error in _ERRORS),
    *((snake(kind.__name__), "") for kind in (Expired, Cancelled)),
)


def named(outcome: Outcome) -> tuple[str, str]:
    """Returns (outcome, reason) of an outcome, both from small fixed sets."""
    reason = ""
    if isinstance(outcome, Rejected):
        reason = outcome.reason.name.lower()
    elif isinstance(outcome, Failed):
        error = outcome.error
        reason = snake((InvalidInput if isinstance(error, InvalidInput) else type(error)).__name__)
    return snake(type(outcome).__name__), reason
