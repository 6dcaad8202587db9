"""Drives the lanes: asks the batcher for a batch when a lane can take one, submits it, and watches how long it takes.

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
from serving.runtime.pacing import Pacer
from serving.runtime.pipelined import PipelinedLane
from serving.runtime.warmup import warm_up_in_lane

HOP_NS = 300_000  # from the event loop to a lane's thread and back
# The loop's timers have a resolution of a millisecond. A late timer leaves the device idle for that long at every
# batch: a fifth of its time if a batch takes a few milliseconds. An early timer costs less: it only keeps requests
# that arrive in that millisecond out of the batch.
TIMER_NS = 1_200_000
SWEEP_S = 0.05  # how often waiting requests are checked for passed deadlines, unless the latency budget asks for more


def hop_ns(model: Model) -> int:
    """Returns how long before the lane is free a batch must be cut, the time to prepare it not counted."""
    return HOP_NS + TIMER_NS if model.asynchronous else HOP_NS


class Owner(Protocol):
    """The receiver of the driver's notifications; it answers the requests. All are sent on the event loop."""

    def batch_departed(self, batch: Batch) -> None:
        """The requests of the batch have left the queue and are in flight."""

    def batch_returned(self, done: Forwarded, occupied_ns: int) -> None:
        """The batch was computed; `done` has the outputs, and the errors of the requests that failed."""

    def requests_expired(self, requests: Sequence[Request], now_ns: int) -> None:
        """The requests have left the queue because their deadlines passed."""

    def lane_lost(self, lane_index: int, why: str, batches: Sequence[Batch]) -> None:
        """The lane takes no more batches, and `batches` will not return from it."""


class Driver:
    """The lanes of one model and what is in flight on them. running: see `warm_up`. pacer: for models on the CPU."""

    def __init__(
        self,
        models: Sequence[Model],
        batcher: Batcher,
        clock: Clock,
        owner: Owner,
        running: Clock | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self.lost = ""
        self._models = models
        self._batcher = batcher
        self._clock = clock
        self._running = running
        self._pacer = pacer
        self._owner = owner
        self._forward_timeout_ns = int(models[0].spec.limits.forward_timeout_s * 1e9)
        self._lanes: list[AnyLane] = []
        self._in_flight: list[list[Batch]] = [[] for _ in models]
        self._began_ns = [0 for _ in models]  # when the lane began its current batch
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
                lane,
                self._batcher.latency,
                self._batcher.sizes,
                self._clock,
                budget_ns=budget_ns,
                report=report,
                running=self._running,
            )
        if self._pacer is not None:
            self._pacer.follow(self._clock.now_ns())
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
        """Returns the index of the first lane with a dead thread, or None."""
        return next((lane.index for lane in self._lanes if not lane.is_alive()), None)

    def batches_in_flight(self) -> int:
        return sum(map(len, self._in_flight))

    def under_way_ns(self, now_ns: int) -> int:
        """Returns how long the lanes have computed their current batches, summed over the lanes."""
        return sum(max(0, now_ns - began) for began, own in zip(self._began_ns, self._in_flight, strict=True) if own)

    # -- batches leave ----------------------------------------------------------------------------------------

    def pump_soon(self) -> None:
        """Feeds the lanes at the end of this iteration of the event loop, so that all requests that arrive in the same
        iteration can share a batch."""
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
            if self._pacer is not None:
                self._pacer.follow(now_ns)
            cut = self._batcher.cut(lane.index, now_ns)
            if cut.batch is not None:
                self._dispatch(lane, cut.batch)
            if cut.expired:  # after the batch was dispatched, which need not wait for this
                self._owner.requests_expired(cut.expired, now_ns)
            if cut.batch is not None:
                continue
            if cut.ask_again_ns is not None:
                delay_s = max(0.0, (cut.ask_again_ns - now_ns) / 1e9)
                self._timers[lane.index] = self._loop.call_later(delay_s, self._feed, lane)
            return

    def _dispatch(self, lane: AnyLane, batch: Batch) -> None:
        """Submits a batch to the lane and starts the watchdog if it does not run."""
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
        """Expires waiting requests while every lane is busy: without it their clients would wait for the next cut."""
        self._sweeper = None
        now_ns = self._clock.now_ns()
        expired = self._batcher.expire(now_ns)
        if expired:
            self._owner.requests_expired(expired, now_ns)
        if self._batcher.queue:
            self._sweeper = self._loop.call_later(self._sweep_s, self._sweep)

    # -- batches return ---------------------------------------------------------------------------------------

    def _report_back(self, done: Forwarded) -> None:
        """Passes a returned batch to the event loop. The only method that is called in a lane's thread."""
        try:
            self._loop.call_soon_threadsafe(self._settle, done)
        except RuntimeError:  # the loop was closed without waiting for this batch: no caller waits for its answers
            return

    def _settle(self, done: Forwarded) -> None:
        """Handles a returned batch: updates what the batcher has learned, feeds the lane, then notifies the owner."""
        batch = done.batch
        lane = self._lanes[batch.lane_index]
        in_flight = self._in_flight[lane.index]
        if batch not in in_flight:
            return  # its lane was given up earlier, and its requests have failed already
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
            self._feed(lane)  # before the answers are sent, which takes longer, so that the lane does not wait for it
        self._owner.batch_returned(done, occupied_ns)

    # -- lanes get lost ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Gives up lanes whose batch takes longer than `forward_timeout_s`. One timer serves all batches."""
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
        """Dispatches no more batches; those in flight still return."""
        self.lost = why

    def _lose(self, lane: AnyLane, why: str) -> None:
        self.lost = why
        batches, self._in_flight[lane.index] = self._in_flight[lane.index], []
        self._owner.lane_lost(lane.index, why, batches)


def nearer(usual_ns: int, seen_ns: int) -> int:
    """Returns the moving average (weight 1/8) after one more value.

    A stall counts as at most twice the average: otherwise it would raise the estimate so far that requests with a
    deadline are rejected, and few measurements would be left to correct it.
    """
    return usual_ns + (min(seen_ns, 2 * usual_ns + HOP_NS) - usual_ns) // 8
