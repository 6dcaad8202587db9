"""The real core as a policy: calls `serving.core.batcher` and checks the ledger after each call."""

from collections.abc import Mapping
from random import Random

from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.errors import ModelError
from serving.core.latency import LatencyModel
from serving.core.ledger import Ledger
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Timings
from serving.core.pace import Pace
from serving.core.request import Request
from serving.core.sizes import Sizes
from serving.testing.simulation.laws import Law
from serving.testing.simulation.machine import Quota
from serving.testing.simulation.policy import Work

WARM_UP_RUNS = 4
WARM_UP_NOISE = 0.02
DONE = Completed(None, 0, Timings(0, 0, 0, 0))
BROKEN = Failed(ModelError("simulated"))
GONE = Cancelled()
LATE = Expired(0)


class Headway:
    """Headway's batcher as a policy.

    law: used only for the warm-up, which measures a ladder of sizes as the runtime does at the start.
    batches_per_lane: 1 cuts when the lane is free; 2 prepares a batch while another is computed, as on a device.
    budget_ns, container: the latency budget and the CPU quota, between which batches are spaced.
    """

    def __init__(
        self,
        law: Law,
        max_rows: int,
        *,
        lanes: int = 1,
        lengths: tuple[int, ...] = (1,),
        row_ladder: tuple[int, ...] | None = None,
        weights: Mapping[str, float] | None = None,
        batches_per_lane: int = 1,
        lead_ns: int = 0,
        max_requests: int = 4096,
        budget_ns: int = 0,
        container: Quota | None = None,
    ) -> None:
        self._container = container
        self.prefetches = batches_per_lane > 1
        self.wake_ns: int | None = None
        self.dropped: list[Request] = []
        self.ledger = Ledger()
        self.batcher = Batcher(
            LatencyModel(lengths=lengths),
            Sizes(largest_rows=max_rows, lengths=lengths, row_ladder=row_ladder),
            lane_count=lanes,
            max_requests=max_requests,
            weights=weights,
            lead_ns=lead_ns,
            batches_per_lane=batches_per_lane,
            pace=Pace(budget_ns),
        )
        self._running: set[int] = set()
        self._warm_up(law, max_rows, lengths)

    def arrive(self, request: Request, now_ns: int) -> bool:
        refusal = self.batcher.admit(request, now_ns)
        if refusal is not None:
            self.ledger.refuse(refusal)
            self._check()
            return False
        self.ledger.receive()
        self.batcher.offer(request)
        self._check()
        return True

    def next(self, lane: int, now_ns: int) -> Work | None:
        if self._container is not None:
            used_ns = self._container.used_ns()
            self.batcher.pace.limit(now_ns, self._container.in_force(now_ns), used_ns)
            self.batcher.pace.follow(now_ns, used_ns)
        cut = self.batcher.cut(lane, now_ns)
        for _ in cut.expired:
            self.ledger.end_queued(LATE)
        self.dropped += cut.expired
        if cut.batch is not None:
            self.ledger.depart(len(cut.batch.requests))
            self._running.update(request.id for request in cut.batch.requests)
        elif cut.ask_again_ns is not None and (self.wake_ns is None or cut.ask_again_ns < self.wake_ns):
            self.wake_ns = max(cut.ask_again_ns, now_ns + 1)
        self._check()
        batch = cut.batch
        return Work(batch.requests, batch.padded_rows, batch.length, batch) if batch else None

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None:
        assert isinstance(work.token, Batch)
        self.batcher.settle(work.token, now_ns, learn=not failed)
        for request in work.requests:
            if request.id in self._running:
                self._running.remove(request.id)
                self.ledger.end_in_flight(BROKEN if failed else DONE)
        self._check()

    def cancel(self, request: Request, now_ns: int) -> bool:
        waited = self.batcher.cancel(request)
        if waited:
            self.ledger.end_queued(GONE)
        elif request.id in self._running:
            self._running.remove(request.id)
            self.ledger.end_in_flight(GONE)
        self._check()
        return waited

    def _check(self) -> None:
        self.ledger.check()
        if self.ledger.queued != len(self.batcher.queue) or self.ledger.in_flight != len(self._running):
            raise AssertionError(f"the ledger and the queue disagree: {self.ledger.snapshot()} {self.batcher.queue}")

    def _warm_up(self, law: Law, max_rows: int, lengths: tuple[int, ...]) -> None:
        rows = [1]
        while rows[-1] < max_rows:
            rows.append(min(rows[-1] * 2, max_rows))
        rng = Random("warm-up")
        for length in lengths:
            for size in rows:
                for _ in range(WARM_UP_RUNS):
                    took_ns = law.mean_ns(size, length) * rng.lognormvariate(0.0, WARM_UP_NOISE)
                    self.batcher.latency.teach(size, length, int(took_ns))
