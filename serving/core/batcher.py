"""Decides when a batch is cut and what rides in it. All scheduling state lives here.

Pure: time arrives as `now_ns`, decisions leave as values. Deciding is marking: when `cut` returns, the requests have
left the queue and the lane counts as busy. Whoever drives it (the engine, a simulation) calls

    offer / cancel   when a client comes or goes
    cut              when a lane could take a batch, until it says there is none
    settle           when a batch is done

A lane holds at most two batches: one computing, one being prepared. The second is cut only when the first is about to
be done, so that late arrivals still ride. One lane never waits; of several, an idle one may (`core/deferral.py`).
"""

from collections import deque
from collections.abc import Mapping
from itertools import chain

from serving.core.batch import Batch, Cut, CutReason
from serving.core.deferral import Deferral
from serving.core.fairness import FairShares
from serving.core.latency import LatencyModel
from serving.core.outcome import Reason, Rejected
from serving.core.queue import RequestQueue, Shape, by_deadline
from serving.core.request import NO_DEADLINE_NS, Request
from serving.core.selection import Selection, select, select_everyone
from serving.core.sizes import Sizes

ANSWERS_REMEMBERED = 8  # batches


class Lane:
    """What the batcher knows of one lane: its batches, oldest first, and when it last finished one."""

    __slots__ = ("batches", "done_ns")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.done_ns = 0

    def free_ns(self) -> int:
        return self.batches[-1].finish_ns if self.batches else 0


class Batcher:
    """The queue and the lanes of one model.

    sizes: which batch shapes exist and the most rows a batch may have.
    weights: share of device time by tenant, 1.0 unless named.
    max_requests: the most requests that may wait.
    lead_ns: how long before a lane is free its next batch should be cut; the time that preparing takes.
    lag_ns: how long after a cut an idle lane begins to compute; whoever drives this measures it.
    answer_ns: how long after a batch is done the last of its answers is out, see `answered`.
    batches_per_lane: 2 to prepare one batch while another computes, 1 not to.
    fills_ahead: a lane's second batch is cut as soon as it would be full, so that its device finds it waiting; else
        only when the lane is about to be free.
    """

    def __init__(
        self,
        latency: LatencyModel,
        sizes: Sizes,
        *,
        lane_count: int = 1,
        max_requests: int = 4096,
        weights: Mapping[str, float] | None = None,
        lead_ns: int = 0,
        batches_per_lane: int = 2,
        fills_ahead: bool = False,
    ) -> None:
        self.latency = latency
        self.sizes = sizes
        self.max_requests = max_requests
        self.lead_ns = lead_ns
        self.lag_ns = 0
        self.answer_ns = 0
        self._batches_per_lane = batches_per_lane
        self._fills_ahead = fills_ahead
        self.queue = RequestQueue()
        self.shares = FairShares(weights)
        self._lanes = [Lane() for _ in range(lane_count)]
        self._deferral = Deferral() if lane_count > 1 else None
        self._batch_count = 0

    def admit(self, request: Request, now_ns: int, waiting_elsewhere: int = 0) -> Rejected | None:
        """Why the request may not enter, or None. Changes nothing.

        A deadline is a reason only where no schedule could meet it; the rest is decided at the cut. And not while a
        lane idles and nobody waits: computing then costs nobody anything, and is the only way to learn that a model
        which was slow has become fast again.

        waiting_elsewhere: requests already admitted that have not been offered yet (they are being prepared), or
            have been computed and not answered (they are being finished).
        """
        if request.rows > self.sizes.largest_rows:
            return Rejected(Reason.TOO_LARGE, retry_after_ns=0, limit=self.sizes.largest_rows)
        if len(self.queue) + waiting_elsewhere >= self.max_requests:
            return Rejected(Reason.QUEUE_FULL, retry_after_ns=self.backlog_ns(request.length))
        if request.deadline_ns - request.arrived_ns >= NO_DEADLINE_NS:
            return None
        done_ns = self._earliest_done_ns(request, now_ns)
        missed_by_ns = done_ns - request.deadline_ns
        if missed_by_ns <= 0 or not (waiting_elsewhere or self.queue or all(lane.batches for lane in self._lanes)):
            return None
        retry_after_ns = max(missed_by_ns, self.backlog_ns(request.length))
        return Rejected(Reason.DEADLINE_HOPELESS, retry_after_ns, needs_ns=done_ns - request.arrived_ns)

    def offer(self, request: Request) -> None:
        """Puts an admitted request into the queue."""
        if not self.queue.has_tenant(request.tenant):
            self.shares.activate(request.tenant, self.queue.tenants(), request.arrived_ns)
        self.queue.add(request, self._shape(request))

    def cancel(self, request: Request) -> bool:
        """Takes a waiting request out; False if it does not wait (any more)."""
        return self.queue.remove(request, self._shape(request))

    def cut(self, lane_index: int, now_ns: int) -> Cut:
        """A batch for this lane, if this is the time for one. See `Cut`."""
        lane = self._lanes[lane_index]
        if len(lane.batches) >= self._batches_per_lane or not self.queue:
            return Cut()
        start_ns = now_ns + self.lag_ns
        spares_nothing = self._is_host_slower()
        if lane.batches:
            if any(not other.batches for other in self._lanes):
                return Cut()  # an idle lane would begin sooner
            start_ns = lane.free_ns()
            if not (self._fills_ahead and self._is_one_full()):
                if spares_nothing:
                    return Cut()
                if now_ns < start_ns - self.lead_ns:
                    return Cut(ask_again_ns=start_ns - self.lead_ns)
                if now_ns > start_ns + self.lead_ns:
                    return Cut()  # it overran: nobody knows when the lane will be free, so nothing is sealed behind it
            start_ns = max(start_ns, now_ns)
        if self._deferral is not None and len(self.queue.lines) == 1:
            due_ns = self._due_ns(self._deferral, start_ns)
            if due_ns > start_ns:
                return Cut(ask_again_ns=due_ns)
        expired: list[Request] = []
        # Answers take time to go out: deadlines are held against a batch as if it began so much later.
        late_ns = start_ns + self.answer_ns
        if spares_nothing:
            expired = self._take_late(now_ns)
            if not self.queue:
                return Cut(expired=expired)
        selection = select_everyone(self.queue, self.latency, self.sizes, self.shares, late_ns, late_too=spares_nothing)
        if selection is None:
            expired += self._take_hopeless(late_ns)
            while self.queue and (selection is None or not selection.requests):
                selection = select(self.queue, self.latency, self.sizes, self.shares, late_ns)
                expired += selection.passed_over
            if (selection is None or not selection.requests) and not lane.batches:
                selection = self._try_one(expired, now_ns)
        if selection is None or not selection.requests:
            return Cut(expired=expired)
        return Cut(batch=self._mark(selection, lane_index, now_ns, start_ns), expired=expired)

    def expire(self, now_ns: int) -> list[Request]:
        """Takes out those that can no longer make it, while no lane asks for a batch."""
        return self._take_hopeless(max(now_ns, self._first_free_ns()) + self.answer_ns)

    def settle(self, batch: Batch, now_ns: int, *, computed_ns: int = 0, learn: bool = True) -> int:
        """The batch is done; its lane is free for what follows it. Returns how long it occupied the lane, in ns.

        computed_ns: without what came before computing, where known: behind another batch that takes no time.
        learn: False for a batch that says nothing about the next (it failed, or was computed in pieces).
        """
        lane = self._lanes[batch.lane_index]
        lane.batches.remove(batch)
        done_before_ns, lane.done_ns = lane.done_ns, now_ns
        occupied_ns = now_ns - max(batch.cut_ns, done_before_ns)
        self._charge(batch, occupied_ns - batch.charged_ns)
        if learn:
            was_idle = batch.cut_ns >= done_before_ns
            self.latency.observe(
                batch.padded_rows, batch.length, computed_ns if was_idle and computed_ns else occupied_ns
            )
        for follower in lane.batches:
            follower.start_ns = now_ns
            follower.finish_ns = now_ns + self.latency.plan_ns(follower.padded_rows, follower.length)
        return occupied_ns

    def answered(self, after_ns: int) -> None:
        """All answers of a batch were given, so long after it was done."""
        self.answer_ns += (after_ns - self.answer_ns) // ANSWERS_REMEMBERED

    def backlog_ns(self, length: int = 1) -> int:
        """How long the lanes need for what waits, at their best throughput; the hint when to come again."""
        rows = self.queue.rows
        if not rows:
            return 0
        length = self.sizes.padded_length(length)
        best_rows = min(rows, self.sizes.useful_rows(self.latency, length))
        batch_ns = self.latency.predict_ns(self.sizes.padded_rows(best_rows), length)
        return batch_ns * -(-rows // best_rows) // len(self._lanes)

    def row_ns(self) -> int:
        """Device time for a row of the largest shape, in a batch of the best size."""
        length = self.sizes.lengths[-1]
        best_rows = self.sizes.useful_rows(self.latency, length)
        return self.latency.predict_ns(self.sizes.padded_rows(best_rows), length) // best_rows

    def _is_one_full(self) -> bool:
        """Whether so many wait that some shape has all the rows that pay off: late arrivals would change little."""
        full_rows = self.sizes.useful_rows(self.latency, self.sizes.lengths[0])
        return self.queue.rows >= full_rows * len(self.queue.lines)

    def _is_host_slower(self) -> bool:
        """Whether getting a batch to the device and back takes longer than computing all that pays off: what the host
        does per batch is then what is short, and one batch of those who come meanwhile spares it a second."""
        length = self.sizes.lengths[0]
        full_rows = self.sizes.useful_rows(self.latency, length)
        return self.latency.predict_ns(self.sizes.padded_rows(full_rows), length) < self.lag_ns

    def _earliest_done_ns(self, request: Request, now_ns: int) -> int:
        """When it can be expected to be done if it is served next."""
        length = self.sizes.padded_length(request.length)
        alone_ns = self.latency.predict_ns(self.sizes.padded_rows(request.rows), length)
        return max(now_ns + self.lag_ns, self._first_free_ns()) + alone_ns + self.answer_ns

    def _first_free_ns(self) -> int:
        lanes = self._lanes
        return lanes[0].free_ns() if len(lanes) == 1 else min(lane.free_ns() for lane in lanes)

    def _due_ns(self, deferral: Deferral, start_ns: int) -> int:
        """Of requests of a single shape: of several, which will ride is known only once they are selected."""
        [((_, length), by_tenant)] = self.queue.lines.items()
        first = min(chain.from_iterable(by_tenant.values()), key=by_deadline)
        all_idle = not any(lane.batches for lane in self._lanes)
        return deferral.due_ns(first, self.queue.rows, length, self.latency, self.sizes, start_ns, all_idle=all_idle)

    def _shape(self, request: Request) -> Shape:
        return (request.group, self.sizes.padded_length(request.length))

    def _take_hopeless(self, start_ns: int) -> list[Request]:
        """Removes those that can be expected to be late even if they are served next and alone."""
        one_row = self.sizes.padded_rows(1)
        return self.queue.take_due(lambda length: start_ns + self.latency.predict_ns(one_row, length))

    def _take_late(self, now_ns: int) -> list[Request]:
        """Removes those that are late already."""
        return self.queue.take_due(lambda length: now_ns)

    def _try_one(self, hopeless: list[Request], now_ns: int) -> Selection | None:
        """Where the lane would idle because nobody can make it: the one with most time left, if its client waits.

        It may be late, but refusing everybody would go on for ever: a plan too careful gets bolder only by computing.
        """
        waiting = [request for request in hopeless if request.expires_ns > now_ns]
        if not waiting:
            return None
        one = max(waiting, key=by_deadline)
        hopeless.remove(one)
        return Selection([one], self.sizes.padded_length(one.length), full=False, held_back=False)

    def _mark(self, selection: Selection, lane_index: int, now_ns: int, start_ns: int) -> Batch:
        lane = self._lanes[lane_index]
        rows = sum([request.rows for request in selection.requests])
        padded_rows = self.sizes.fastest_rows(rows, self.latency, selection.length)
        expected_ns = self.latency.plan_ns(padded_rows, selection.length)
        self._batch_count += 1
        batch = Batch(
            id=self._batch_count,
            lane_index=lane_index,
            requests=selection.requests,
            rows=rows,
            padded_rows=padded_rows,
            length=selection.length,
            cut_ns=now_ns,
            start_ns=start_ns,
            finish_ns=start_ns + expected_ns,
            charged_ns=expected_ns,
            reason=_reason(selection, lane_was_idle=not lane.batches),
        )
        lane.batches.append(batch)
        self._charge(batch, expected_ns)
        return batch

    def _charge(self, batch: Batch, device_ns: int) -> None:
        """Each tenant pays for its rows."""
        tenants = {request.tenant for request in batch.requests}
        if len(tenants) == 1:
            self.shares.charge(tenants.pop(), device_ns)
            return
        rows_by_tenant = dict.fromkeys(tenants, 0)
        for request in batch.requests:
            rows_by_tenant[request.tenant] += request.rows
        for tenant, rows in rows_by_tenant.items():
            self.shares.charge(tenant, device_ns * rows / batch.rows)


def _reason(selection: Selection, *, lane_was_idle: bool) -> CutReason:
    if selection.full:
        return CutReason.FULL
    if selection.held_back:
        return CutReason.DEADLINE
    return CutReason.IDLE if lane_was_idle else CutReason.LANE_READY
