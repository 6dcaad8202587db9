"""Drives the lanes: takes a batch from the batcher when a lane has room, dispatches it, and watches its time limit.

Everything here runs on one event loop, so there are no locks; lanes report back with `call_soon_threadsafe`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from models.base import Model, PipelinedModel
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.clock import Clock
from serving.core.request import Request
from serving.runtime.forwarding import Forwarded
from serving.runtime.lane import AnyLane, Lane
from serving.runtime.pipelined import PipelinedLane
from serving.runtime.warmup import warm_up_in_lane

HOP_NS = 300_000  # from the event loop to a lane's thread and back
# The loop's timers are as coarse as a millisecond. A device that waits for a late one loses that at every batch, a
# fifth of its time where one takes a few; an early timer only keeps out those who come within it.
TIMER_NS = 1_200_000
SWEEP_S = 0.05  # time between two checks of queued requests for passed deadlines; a latency budget may shorten it


def hop_ns(model: Model) -> int:
    """Returns how long before its latest start a batch must be cut, not counting its preparation."""
    return HOP_NS + TIMER_NS if model.asynchronous else HOP_NS


class Owner(Protocol):
    """The owner of the requests, which is notified of the outcome of batches and answers them."""

    def batch_departed(self, batch: Batch) -> None:
        """Called when the requests of a batch have left the queue."""

    def batch_returned(self, done: Forwarded, occupied_ns: int) -> None:
        """Called when a batch was computed or failed. `done` has the outputs and errors of its requests."""

    def requests_expired(self, requests: Sequence[Request], now_ns: int) -> None:
        """Called when requests have left the queue because they are too late to be computed."""

    def lane_lost(self, lane_index: int, why: str, batches: Sequence[Batch]) -> None:
        """Called when a lane is lost: it takes no more batches, and will not return these."""


class Driver:
    """The lanes of one model and what is in flight on them."""

    def __init__(self, models: Sequence[Model], batcher: Batcher, clock: Clock, owner: Owner) -> None:
        self.lost = ""
        self._models = models
        self._batcher = batcher
        self._clock = clock
        self._owner = owner
        self._forward_timeout_ns = int(models[0].spec.limits.forward_timeout_s * 1e9)
        self._lanes: list[AnyLane] = []
        self._in_flight: list[list[Batch]] = [[] for _ in models]
        self._began_ns = [0 for _ in models]  # when the batch that now computes began
        self._timers: list[asyncio.TimerHandle | None] = [None for _ in models]
        self._watchdog: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_s = SWEEP_S
        self._pump_is_due = False

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self, *, budget_ns: int | None, report: Callable[[str], None]) -> None:
        """Starts the lanes and warms them up."""
        self._loop = asyncio.get_running_loop()
        self._lanes = [self._lane(model, index) for index, model in enumerate(self._models)]
        for lane in self._lanes:
            lane.open()
            await warm_up_in_lane(
                lane, self._batcher.latency, self._batcher.sizes, self._clock, budget_ns=budget_ns, report=report
            )
        if budget_ns is not None:
            self._sweep_s = min(SWEEP_S, max(0.005, budget_ns / 4e9))

    def _lane(self, model: Model, index: int) -> AnyLane:
        if model.asynchronous:
            return PipelinedLane(cast(PipelinedModel, model), index, self._clock, self._report_back)
        return Lane(model, index, self._clock, self._report_back)

    def close(self) -> None:
        """Ends the threads and unloads the models."""
        for handle in (*self._timers, self._watchdog, self._sweeper):
            if handle is not None:
                handle.cancel()
        for lane in self._lanes:
            lane.close()
            lane.model.close()

    @property
    def lane_count(self) -> int:
        return len(self._models)

    def dead_lane(self) -> int | None:
        """The index of a lane one of whose threads has died."""
        return next((lane.index for lane in self._lanes if not lane.is_alive()), None)

    def batches_in_flight(self) -> int:
        return sum(map(len, self._in_flight))

    def under_way_ns(self, now_ns: int) -> int:
        """Returns the sum over all lanes of the time since their running batch began."""
        return sum(max(0, now_ns - began) for began, own in zip(self._began_ns, self._in_flight, strict=True) if own)

    # -- batches leave ----------------------------------------------------------------------------------------

    def pump_soon(self) -> None:
        """Schedules a pump for the end of this iteration of the event loop: requests of one iteration share a batch."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        for lane in sorted(self._lanes, key=lambda lane: len(self._in_flight[lane.index])):  # the idle ones first
            self._feed(lane)
        if self._sweeper is None and self._batcher.queue:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    def _feed(self, lane: AnyLane) -> None:
        """Gives the lane every batch that it can take now."""
        timer = self._timers[lane.index]
        if timer is not None:
            timer.cancel()
            self._timers[lane.index] = None
        while self._batcher.queue and not self.lost:
            now_ns = self._clock.now_ns()
            cut = self._batcher.cut(lane.index, now_ns)
            if cut.batch is not None:
                self._dispatch(lane, cut.batch)
            if cut.expired:  # told after the batch has left: it need not wait for that
                self._owner.requests_expired(cut.expired, now_ns)
            if cut.batch is not None:
                continue
            if cut.ask_again_ns is not None:
                delay_s = max(0.0, (cut.ask_again_ns - now_ns) / 1e9)
                self._timers[lane.index] = self._loop.call_later(delay_s, self._feed, lane)
            return

    def _dispatch(self, lane: AnyLane, batch: Batch) -> None:
        in_flight = self._in_flight[lane.index]
        in_flight.append(batch)
        self._owner.batch_departed(batch)
        is_alone = len(in_flight) == 1
        lane.submit(batch, lane_is_idle=is_alone)
        if is_alone:
            self._began_ns[lane.index] = batch.cut_ns
            if self._watchdog is None:
                self._watchdog = self._loop.call_later(self._forward_timeout_ns / 1e9, self._watch)

    def _sweep(self) -> None:
        """While requests wait, nobody learns of a passed deadline only because every lane is busy."""
        self._sweeper = None
        now_ns = self._clock.now_ns()
        expired = self._batcher.expire(now_ns)
        if expired:
            self._owner.requests_expired(expired, now_ns)
        if self._batcher.queue:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    # -- batches return ---------------------------------------------------------------------------------------

    def _report_back(self, done: Forwarded) -> None:
        """Called in a lane's thread."""
        try:
            self._loop.call_soon_threadsafe(self._settle, done)
        except RuntimeError:  # the loop was closed without waiting for this batch: nobody is left to be answered
            return

    def _settle(self, done: Forwarded) -> None:
        batch = done.batch
        lane = self._lanes[batch.lane_index]
        in_flight = self._in_flight[lane.index]
        if batch not in in_flight:
            return  # it came back after all, long after its lane was given up and its requests were answered
        in_flight.remove(batch)
        lane_was_done_ns, self._began_ns[lane.index] = self._began_ns[lane.index], done.done_ns
        occupied_ns = self._batcher.settle(batch, done.done_ns, computed_ns=done.compute_ns, learn=done.is_clean())
        lead_ns = hop_ns(lane.model) + done.prepare_ns + done.copy_ns
        self._batcher.lead_ns = nearer(self._batcher.lead_ns, lead_ns)
        if batch.cut_ns >= lane_was_done_ns:  # the lane was idle
            lag_ns = max(0, done.done_ns - batch.cut_ns - done.compute_ns)
            self._batcher.lag_ns = nearer(self._batcher.lag_ns, lag_ns)
        if done.ran_out_of_memory:
            self._batcher.sizes.halve()
        if done.lost:
            self._lose(lane, "the device is lost")
        else:
            self._feed(lane)  # before the answers go out, which takes longer: the lane need not wait for that
        self._owner.batch_returned(done, occupied_ns)

    # -- lanes get lost ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Gives up lanes whose batch computes for longer than the model's limit. One timer serves all batches."""
        now_ns = self._clock.now_ns()
        for lane in self._lanes:
            if self._in_flight[lane.index] and now_ns - self._began_ns[lane.index] >= self._forward_timeout_ns:
                self._lose(lane, f"a forward pass did not return within {self._forward_timeout_ns / 1e9:g} s")
        began_ns = [self._began_ns[index] for index, batches in enumerate(self._in_flight) if batches]
        self._watchdog = None
        if began_ns:
            left_ns = min(began_ns) + self._forward_timeout_ns - now_ns
            self._watchdog = self._loop.call_later(left_ns / 1e9, self._watch)

    def give_up(self, why: str) -> None:
        """Stops all dispatch. Batches in flight still return."""
        self.lost = why

    def _lose(self, lane: AnyLane, why: str) -> None:
        self.lost = why
        batches, self._in_flight[lane.index] = self._in_flight[lane.index], []
        self._owner.lane_lost(lane.index, why, batches)


def nearer(usual_ns: int, seen_ns: int) -> int:
    """Returns the moving average after one more measurement. A stall counts as about twice the average at most: if it
    were expected to recur, every request would be refused, and few measurements would be left to correct it."""
    return usual_ns + (min(seen_ns, 2 * usual_ns + HOP_NS) - usual_ns) // 8
