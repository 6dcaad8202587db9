"""Decides when a batch is cut and which requests it contains. All scheduling state lives here.

The module is pure: time comes in as `now_ns`, decisions are returned as values. A decision takes effect at once: when
`cut` returns a batch, its requests have left the queue and the lane counts as busy. The driver (the engine or a
simulation) calls

    offer / cancel   when a request arrives or is withdrawn
    cut              when a lane could take a batch, repeatedly until it returns none
    settle           when a batch is done

A lane holds at most two batches: one that is computed and one that is prepared. The second is cut only when the first
is about to be done, so that late arrivals can still join it. With one lane, an idle lane never waits; with several, it
may wait for more requests (`core/deferral.py`).
"""

from collections import deque
from collections.abc import Mapping
from itertools import chain

from serving.core.batch import Batch, Cut, CutReason
from serving.core.deferral import Deferral
from serving.core.fairness import FairShares
from serving.core.latency import LatencyModel
from serving.core.outcome import Reason, Rejected
from serving.core.pace import Pace
from serving.core.queue import RequestQueue, Shape, by_deadline
from serving.core.request import NO_DEADLINE_NS, Request
from serving.core.selection import Selection, select, select_all
from serving.core.sizes import Sizes

ANSWERS_REMEMBERED = 8  # batches


class Lane:
    """The batcher's state of one lane: its batches, oldest first, and the instant at which it last finished one."""

    __slots__ = ("batches", "done_ns")

    def __init__(self) -> None:
        self.batches: deque[Batch] = deque()
        self.done_ns = 0

    def free_ns(self) -> int:
        return self.batches[-1].finish_ns if self.batches else 0


class Batcher:
    """The queue and the lanes of one model.

    sizes: the possible batch shapes and the most rows of a batch.
    weights: relative share of device time by tenant; 1.0 for tenants not named.
    max_requests: the most requests that may wait.
    lead_ns: how long before a lane is free its next batch is cut: the time that preparing a batch takes.
    lag_ns: time from the cut until an idle lane begins to compute, measured and set by the driver.
    answer_ns: average time from the end of a batch until its last answer is sent, see `answered`.
    unprepared_rows: admitted rows that are not in the queue, since they are not prepared yet (`core/preparing.py`).
    batches_per_lane: 2 to prepare a batch while another is computed, 1 to have only one batch at a time.
    fills_ahead: cut a lane's second batch as soon as it would be full, so that the device finds it ready; otherwise
        only when the lane is about to be free.
    pace: when a batch may begin on a CPU with a quota. While CPU time is short, a lane has one batch at a time.
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
        pace: Pace | None = None,
    ) -> None:
        self.pace = pace or Pace(0)
        self.latency = latency
        self.sizes = sizes
        self._shortest = sizes.lengths[0]
        self.max_requests = max_requests
        self.lead_ns = lead_ns
        self.lag_ns = 0
        self.answer_ns = 0
        self.unprepared_rows = 0
        self._batches_per_lane = batches_per_lane
        self._fills_ahead = fills_ahead
        self.queue = RequestQueue()
        self.shares = FairShares(weights)
        self._lanes = [Lane() for _ in range(lane_count)]
        self._deferral = Deferral() if lane_count > 1 else None
        self._batch_count = 0

    def admit(self, request: Request, now_ns: int, waiting_elsewhere: int = 0) -> Rejected | None:
        """Returns None if the request is admitted, otherwise the rejection. Changes no state.

        A deadline is a reason to reject only if no schedule could meet it; all else is decided at the cut. Even such a
        request is admitted if a lane is idle and no request waits: computing it delays no other request, and it is the
        only way to learn that a model that was slow has become fast again.

        waiting_elsewhere: number of admitted requests that are not in the queue: not offered yet because they are
            being prepared, or computed and not answered yet.
        """
        if request.rows > self.sizes.largest_rows:
            return Rejected(Reason.TOO_LARGE, retry_after_ns=0, limit=self.sizes.largest_rows)
        if self.queue.count + waiting_elsewhere >= self.max_requests:
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
        """Removes a waiting request from the queue; returns False if it is not in the queue."""
        return self.queue.remove(request, self._shape(request))

    def cut(self, lane_index: int, now_ns: int) -> Cut:
        """Cuts a batch for this lane if one is to be cut now. See `Cut`."""
        lane = self._lanes[lane_index]
        if len(lane.batches) >= self._batches_per_lane or not self.queue:
            return Cut()
        if self.pace.is_short and (lane.batches or now_ns < self.pace.ready_ns):
            return Cut(ask_again_ns=None if lane.batches else self.pace.ready_ns)
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
                    return Cut()  # the current batch overran: when the lane will be free is unknown, so cut none for it
            start_ns = max(start_ns, now_ns)
        if self._deferral is not None and len(self.queue.lines) == 1:
            due_ns = self._due_ns(self._deferral, start_ns)
            if due_ns > start_ns:
                return Cut(ask_again_ns=due_ns)
        expired: list[Request] = []
        # Sending answers takes time. Deadlines are compared as if the batch began that much later.
        late_ns = start_ns + self.answer_ns
        if spares_nothing:
            expired = self._take_late(now_ns)
            if not self.queue:
                return Cut(expired=expired)
        selection = select_all(self.queue, self.latency, self.sizes, self.shares, late_ns, late_too=spares_nothing)
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
        """Removes and returns the requests that can no longer meet their deadlines; for use while no lane asks."""
        return self._take_hopeless(max(now_ns, self._first_free_ns()) + self.answer_ns)

    def settle(self, batch: Batch, now_ns: int, *, computed_ns: int = 0, learn: bool = True) -> int:
        """Removes a finished batch from its lane. Returns how long it occupied the lane, in ns.

        Corrects what its tenants were charged, teaches the latency model and renews the plan of the lane's next batch.

        computed_ns: the time of computing without the staging before it, 0 if unknown. It is what the latency model
            learns if the lane was idle at the cut; behind another batch staging overlaps with that batch.
        learn: False if the batch's time says nothing about later batches (it failed, or was bisected).
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
        """Averages into `answer_ns` the time from the end of a batch until its last answer was sent."""
        self.answer_ns += (after_ns - self.answer_ns) // ANSWERS_REMEMBERED

    def backlog_ns(self, length: int = 1) -> int:
        """Returns how long the lanes need for all waiting requests at their best throughput; sent as the retry hint."""
        rows = self.queue.rows + self.unprepared_rows
        if not rows:
            return 0
        length = self.sizes.padded_length(length)
        best_rows = min(rows, self.sizes.useful_rows(self.latency, length))
        batch_ns = self.latency.predict_ns(self.sizes.padded_rows(best_rows), length)
        return batch_ns * -(-rows // best_rows) // len(self._lanes)

    def row_ns(self) -> int:
        """Returns the device time in ns for one row of the largest shape, in a batch of the best size."""
        length = self.sizes.lengths[-1]
        best_rows = self.sizes.useful_rows(self.latency, length)
        return self.latency.predict_ns(self.sizes.padded_rows(best_rows), length) // best_rows

    def _is_one_full(self) -> bool:
        """Returns whether some shape certainly has a full batch waiting, so that later arrivals would change little.

        With n shapes, n full batches of rows in the queue suffice (pigeonhole principle).
        """
        full_rows = self.sizes.useful_rows(self.latency, self.sizes.lengths[0])
        return self.queue.rows >= full_rows * len(self.queue.lines)

    def _is_host_slower(self) -> bool:
        """Returns whether the host's work for a batch takes longer than the device's work for a full one.

        The host is then the bottleneck, and fewer, larger batches save its time: a single batch of all requests that
        arrive while another is under way replaces two."""
        length = self.sizes.lengths[0]
        full_rows = self.sizes.useful_rows(self.latency, length)
        return self.latency.predict_ns(self.sizes.padded_rows(full_rows), length) < self.lag_ns

    def earliest_ns(self, now_ns: int, *, rows: int = 1) -> int:
        """Returns the earliest instant at which a batch of `rows` of the shortest shape is expected to be answered.

        Without rows, the instant at which a lane can begin one."""
        begins_ns = self._next_start_ns(now_ns)
        if not rows:
            return begins_ns
        alone_ns = self.latency.predict_ns(self.sizes.padded_rows(rows), self.sizes.lengths[0])
        return begins_ns + alone_ns + self.answer_ns

    def _earliest_done_ns(self, request: Request, now_ns: int) -> int:
        """Returns the instant at which the request is expected to be answered if it is served next and alone."""
        length = self.sizes.padded_length(request.length)
        alone_ns = self.latency.predict_ns(self.sizes.padded_rows(request.rows), length)
        return self._next_start_ns(now_ns) + alone_ns + self.answer_ns

    def _next_start_ns(self, now_ns: int) -> int:
        return max(now_ns + self.lag_ns, self._first_free_ns())

    def _first_free_ns(self) -> int:
        lanes = self._lanes
        free_ns = lanes[0].free_ns() if len(lanes) == 1 else min(lane.free_ns() for lane in lanes)
        return max(free_ns, self.pace.ready_ns)

    def _due_ns(self, deferral: Deferral, start_ns: int) -> int:
        """Returns the instant at which the next batch should be cut, given that a single shape waits.

        With several shapes it is known only after the selection which requests the batch would contain.
        """
        [((_, length), by_tenant)] = self.queue.lines.items()
        first = min(chain.from_iterable(by_tenant.values()), key=by_deadline)
        all_idle = not any(lane.batches for lane in self._lanes)
        return deferral.due_ns(first, self.queue.rows, length, self.latency, self.sizes, start_ns, all_idle=all_idle)

    def _shape(self, request: Request) -> Shape:
        length = request.length
        return (request.group, length if length == self._shortest else self.sizes.padded_length(length))

    def _take_hopeless(self, start_ns: int) -> list[Request]:
        """Removes and returns the requests expected to be late even if served next and alone."""
        one_row = self.sizes.padded_rows(1)
        return self.queue.take_due(lambda length: start_ns + self.latency.predict_ns(one_row, length))

    def _take_late(self, now_ns: int) -> list[Request]:
        """Removes and returns the requests whose deadlines have passed."""
        return self.queue.take_due(lambda length: now_ns)

    def _try_one(self, hopeless: list[Request], now_ns: int) -> Selection | None:
        """Selects one of the `hopeless` requests for a lane that would otherwise idle: the one with the latest deadline
        whose client still waits; None if there is none.

        It may be late. But if all requests were refused, this would never end: only computing can show the latency
        model that its prediction is too long.
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
        self.pace.batch_began(now_ns)
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
        """Charges the device time to the tenants in proportion to their rows."""
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
