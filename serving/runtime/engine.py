"""The engine: takes requests on the event loop, lets the batcher decide, drives the lanes, answers every request once.

Everything here runs on one event loop, so there are no locks; lanes report back with `call_soon_threadsafe`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

from models.base import InvalidInput as UnusableInput
from models.base import Model, Prepared, Tensors
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.clock import Clock, SystemClock
from serving.core.errors import BatchTimeout, InvalidInput, LaneLost, ServingError
from serving.core.latency import LatencyModel
from serving.core.ledger import Ledger
from serving.core.observer import Observer, SilentObserver
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected, Timings
from serving.core.request import NO_DEADLINE_NS, Request, rank
from serving.core.sizes import Sizes
from serving.core.statistics import ModelStatistics
from serving.runtime.answers import as_model_error, split_one_by_one_if_need_be
from serving.runtime.bookkeeping import Bookkeeper
from serving.runtime.lane import Forwarded, Lane
from serving.runtime.ticket import Ticket
from serving.runtime.warmup import warm_up_in_lane

LARGEST_ROWS = 128  # where the model's owner sets no limit
PRIORITY_STEP_NS = 1_000_000_000  # what a priority level is worth in waiting, for models without a latency budget
SMALLEST_BUDGET_IN_BATCHES = 2.5  # a budget below what one request alone may take would refuse everybody
HOP_NS = 300_000  # from the event loop to a lane's thread and back
SCHEDULING_ALLOWANCE_NS = 2_000_000  # for event loops and threads to take turns, whatever the model does


class Engine:
    """One model on one or more lanes, and the queue in front of them.

    models: one loaded model per lane.
    weights: share of device time by tenant.
    prepare_threads: for models with a `prepare` or `finish` of their own.
    batches_per_lane: 2 prepares one batch while another computes, 1 does not.
    report: told in words how warming up goes.
    Use it as `async with Engine(...)`: opening warms up, leaving drains.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        weights: Mapping[str, float] | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        prepare_threads: int = 2,
        batches_per_lane: int = 2,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = models[0]
        self.spec = self.model.spec
        self._models = models
        self._clock = clock or SystemClock()
        self._observer = observer or SilentObserver()
        self._report = report
        self._budget_ns = int(self.spec.latency_budget_ms * 1e6) if self.spec.latency_budget_ms else None
        lengths = self.model.lengths()
        self.batcher = Batcher(
            LatencyModel(lengths=lengths),
            Sizes(largest_rows=self.spec.limits.max_batch_rows or LARGEST_ROWS, lengths=lengths),
            lane_count=len(models),
            max_requests=self.spec.limits.max_queue_requests,
            weights=weights,
            lead_ns=HOP_NS,
            batches_per_lane=batches_per_lane,
        )
        self.ledger = Ledger()
        self._books = Bookkeeper()
        self._tickets: dict[int, Ticket] = {}
        self._preparing: dict[int, Request] = {}
        self._pool = ThreadPoolExecutor(prepare_threads, thread_name_prefix=f"prepare-{self.spec.name}")
        self._next_id = 0
        self._accepting = False
        self._pump_is_due = False
        self._lost = ""
        self._empty = asyncio.Event()

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Starts the lanes and warms them up; returns when requests can be taken."""
        self._loop = asyncio.get_running_loop()
        self._lanes = [
            Lane(model, index, self._clock, self._settle_from_thread) for index, model in enumerate(self._models)
        ]
        self._in_flight: list[list[Batch]] = [[] for _ in self._lanes]
        self._timers: list[asyncio.TimerHandle | None] = [None for _ in self._lanes]
        self._watchdogs: list[asyncio.TimerHandle | None] = [None for _ in self._lanes]
        self._sweeper: asyncio.TimerHandle | None = None
        for lane in self._lanes:
            lane.open()
            self.batcher.sizes.largest_rows = await warm_up_in_lane(
                lane,
                self.batcher.latency,
                self._clock,
                largest_rows=self.batcher.sizes.largest_rows,
                budget_ns=self._budget_ns,
                report=self._report,
            )
        self._raise_hopeless_budget()
        self._accepting = True

    async def drain(self, timeout_s: float) -> int:
        """Refuses newcomers, answers whom it can in time, fails the rest. Returns how many it had to fail."""
        self._accepting = False
        if not self.ledger.is_empty():
            self._empty.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
            except TimeoutError:
                pass
        left = list(self._tickets.values())
        for ticket in left:
            self._end(ticket.request, Failed(LaneLost("the server shut down before the request was served")))
        return len(left)

    def close(self) -> None:
        """Ends the threads. Call `drain` first."""
        self._accepting = False
        for handle in (*self._timers, *self._watchdogs, self._sweeper):
            if handle is not None:
                handle.cancel()
        for lane in self._lanes:
            lane.close()
            lane.model.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> "Engine":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(timeout_s=30.0)
        self.close()

    # -- the backend's verbs ----------------------------------------------------------------------------------

    def submit(
        self,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
    ) -> Ticket:
        """See `core.backend.Backend.submit`."""
        now_ns = self._clock.now_ns()
        request = self._request(payload, rows, tenant, priority, timeout_ns, now_ns)
        ticket = Ticket(request, self._loop.create_future(), self._withdraw)
        refusal = self._refusal(request, now_ns)
        if refusal is not None:
            self.ledger.refuse(refusal)
            self._books.ended(refusal)
            self._observer.request_ended(request, refusal)
            ticket.settle(refusal)
            return ticket
        self.ledger.receive()
        self._tickets[request.id] = ticket
        if self.model.prepares:
            self._preparing[request.id] = request
            job = self._loop.run_in_executor(self._pool, self.model.prepare, cast(Tensors, payload))
            job.add_done_callback(lambda done: self._prepared(request, done))
        else:
            self._offer_directly(request, cast(Tensors, payload))
        return ticket

    def statistics(self) -> ModelStatistics:
        return self._books.statistics

    def is_ready(self) -> bool:
        return self._accepting and not self._lost

    @property
    def budget_ms(self) -> float | None:
        """The latency budget in force; raised at the start if the declared one could not be met."""
        return None if self._budget_ns is None else self._budget_ns / 1e6

    def check_health(self) -> None:
        """Raises `LaneLost` when this engine can serve no more and should be replaced."""
        if self._lost:
            raise LaneLost(self._lost)
        for lane in self._lanes:
            if not lane.is_alive():
                raise LaneLost(f"a thread of lane {lane.index} has died")

    # -- requests come and go ---------------------------------------------------------------------------------

    def _request(
        self, payload: object, rows: int, tenant: str, priority: int, timeout_ns: int | None, now_ns: int
    ) -> Request:
        self._next_id += 1
        budget_ns = self._budget_ns or NO_DEADLINE_NS
        expires_ns = now_ns + (timeout_ns or NO_DEADLINE_NS)
        deadline_ns = min(now_ns + budget_ns, expires_ns)
        return Request(
            id=self._next_id,
            tenant=tenant,
            rows=rows,
            length=1,
            group=None,
            arrived_ns=now_ns,
            deadline_ns=deadline_ns,
            expires_ns=expires_ns,
            rank_ns=rank(deadline_ns, priority, self._budget_ns or PRIORITY_STEP_NS),
            payload=payload,
        )

    def _refusal(self, request: Request, now_ns: int) -> Outcome | None:
        if self._lost:
            return Failed(LaneLost(self._lost))
        if not self._accepting:
            return Rejected(Reason.DRAINING, retry_after_ns=1_000_000_000)
        return self.batcher.admit(request, now_ns, waiting_elsewhere=len(self._preparing))

    def _offer_directly(self, request: Request, payload: Tensors) -> None:
        try:
            self._offer(request, self.model.prepare(payload))
        except UnusableInput as error:
            self._end(request, Failed(InvalidInput(str(error))))
        except Exception as error:
            self._end(request, Failed(as_model_error(error)))

    def _prepared(self, request: Request, job: asyncio.Future[Prepared]) -> None:
        """A preparation in the pool is over; its client may have gone meanwhile."""
        if self._preparing.pop(request.id, None) is None:
            job.cancelled() or job.exception()  # looked at, so that asyncio does not complain
            return
        if job.cancelled():
            self._end(request, Failed(LaneLost("the server is shutting down")))
        elif (error := job.exception()) is not None:
            failed = InvalidInput(str(error)) if isinstance(error, UnusableInput) else as_model_error(error)
            self._end(request, Failed(failed))
        else:
            self._offer(request, job.result())

    def _offer(self, request: Request, prepared: Prepared) -> None:
        request.payload = prepared
        request.group = prepared.group
        request.length = prepared.length
        self.batcher.offer(request)
        self._pump_soon()

    def _withdraw(self, request: Request) -> None:
        if request.id in self._tickets:
            self._end(request, Cancelled())

    def _end(self, request: Request, outcome: Outcome) -> None:
        """The one way out for an accepted request."""
        ticket = self._tickets.pop(request.id)
        if self._preparing.pop(request.id, None) is not None or self.batcher.cancel(request):
            self.ledger.end_queued(outcome)
        elif request.payload is not None and self._is_in_flight(request):
            self.ledger.end_in_flight(outcome)
        else:
            self.ledger.end_queued(outcome)
        self._answer(ticket, outcome)

    def _answer(self, ticket: Ticket, outcome: Outcome) -> None:
        self._books.ended(outcome)
        self._observer.request_ended(ticket.request, outcome)
        ticket.settle(outcome)
        if not self._accepting and self.ledger.is_empty():
            self._empty.set()

    def _is_in_flight(self, request: Request) -> bool:
        return any(request in batch.requests for batches in self._in_flight for batch in batches)

    # -- batches come and go ----------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """At the end of this turn of the loop: whatever arrived in the same turn rides in the same batch."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        for lane in self._lanes:
            if not self._lost:
                self._feed(lane)
        self._sweep_later()

    def _feed(self, lane: Lane) -> None:
        now_ns = self._clock.now_ns()
        cut = self.batcher.cut(lane.index, now_ns)
        for request in cut.expired:
            self._expire(request, now_ns)
        timer = self._timers[lane.index]
        if timer is not None:
            timer.cancel()
            self._timers[lane.index] = None
        if cut.batch is not None:
            self._dispatch(lane, cut.batch)
            self._feed(lane)
        elif cut.ask_again_ns is not None:
            delay_s = max(0.0, (cut.ask_again_ns - now_ns) / 1e9)
            self._timers[lane.index] = self._loop.call_later(delay_s, self._feed, lane)

    def _dispatch(self, lane: Lane, batch: Batch) -> None:
        in_flight = self._in_flight[lane.index]
        self.ledger.depart(len(batch.requests))
        in_flight.append(batch)
        lane.submit(batch, lane_is_idle=len(in_flight) == 1)
        if len(in_flight) == 1:
            self._watch(lane)

    def _expire(self, request: Request, now_ns: int) -> None:
        ticket = self._tickets.pop(request.id)
        outcome = Expired(waited_ns=now_ns - request.arrived_ns)
        self.ledger.end_queued(outcome)
        self._answer(ticket, outcome)

    def _settle_from_thread(self, done: Forwarded) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, done)
        except RuntimeError:  # the loop was closed without waiting for this batch: nobody is left to be answered
            return

    def _settle(self, done: Forwarded) -> None:
        batch = done.batch
        lane = self._lanes[batch.lane_index]
        if self._lost and batch not in self._in_flight[lane.index]:
            return  # it came back after all, long after its requests were answered
        occupied_ns = self.batcher.settle(batch, done.done_ns, learn=done.is_clean())
        self.batcher.lead_ns += (HOP_NS + done.prepare_ns - self.batcher.lead_ns) // 8
        self._in_flight[lane.index].remove(batch)
        self._watch(lane)
        self._observer.batch_settled(batch, occupied_ns)
        self._books.executed(batch, done, self._clock.now_ns())
        if done.ran_out_of_memory:
            self.batcher.sizes.halve()
            self._observer.batch_limit_halved(self.batcher.sizes.largest_rows)
        if done.lost:
            self._lose(lane, "the device is lost")
        elif self.batcher.queue:
            self._pump_soon()
        self._deliver(done)

    def _deliver(self, done: Forwarded) -> None:
        for index, error in done.errors.items():
            self._land(done.batch.requests[index], Failed(error))
        for outputs, members in done.pieces:
            requests = [done.batch.requests[index] for index in members]
            if self.model.finishes:
                job = self._loop.run_in_executor(self._pool, split_one_by_one_if_need_be, self.model, outputs, requests)
                job.add_done_callback(partial(self._finish, requests, done))
            else:
                self._finish(requests, done, split_one_by_one_if_need_be(self.model, outputs, requests))

    def _finish(
        self,
        requests: list[Request],
        done: Forwarded,
        answered: list[Tensors | ServingError] | asyncio.Future[list[Tensors | ServingError]],
    ) -> None:
        answers = answered.result() if isinstance(answered, asyncio.Future) else answered
        batch = done.batch
        finish_ns = self._clock.now_ns() - done.done_ns
        completed = waited_ns = 0
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, ServingError):
                self._land(request, Failed(answer))
                continue
            queue_ns = batch.cut_ns - request.arrived_ns
            timings = Timings(queue_ns, done.prepare_ns, done.compute_ns, finish_ns, batch.rows)
            completed += self._land(request, Completed(answer, timings))
            waited_ns += queue_ns
        self._books.completed(completed, waited_ns, done, finish_ns)

    def _land(self, request: Request, outcome: Outcome) -> bool:
        """Ends a request that was in flight, unless its client left or its lane was given up meanwhile: then False."""
        ticket = self._tickets.pop(request.id, None)
        if ticket is None:
            return False
        self.ledger.end_in_flight(outcome)
        self._answer(ticket, outcome)
        return True

    # -- when things go wrong ---------------------------------------------------------------------------------

    def _watch(self, lane: Lane) -> None:
        """Gives the batch that is now computing its time."""
        watchdog = self._watchdogs[lane.index]
        if watchdog is not None:
            watchdog.cancel()
            self._watchdogs[lane.index] = None
        if self._in_flight[lane.index]:
            timeout_s = self.spec.limits.forward_timeout_s
            self._watchdogs[lane.index] = self._loop.call_later(timeout_s, self._give_up, lane)

    def _give_up(self, lane: Lane) -> None:
        self._lose(lane, f"a forward pass did not return within {self.spec.limits.forward_timeout_s:g} s")

    def _lose(self, lane: Lane, why: str) -> None:
        """The lane is gone: its batches fail at once, and whatever waits, since this replica will be replaced."""
        self._lost = why
        self._observer.lane_lost(lane.index, why)
        lost, self._in_flight[lane.index] = self._in_flight[lane.index], []
        for batch in lost:
            for request in batch.requests:
                self._land(request, Failed(BatchTimeout(why)))
        for request in [*self.batcher.queue.clear(), *self._preparing.values()]:
            self._preparing.pop(request.id, None)
            self._end(request, Failed(LaneLost(why)))

    def _sweep_later(self) -> None:
        """While requests wait, nobody learns of a passed deadline only because every lane is busy."""
        if self._sweeper is None and self._budget_ns is not None and self.batcher.queue:
            self._sweeper = self._loop.call_later(max(0.005, self._budget_ns / 4e9), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now_ns = self._clock.now_ns()
        for request in self.batcher.expire(now_ns):
            self._expire(request, now_ns)
        self._sweep_later()

    def _raise_hopeless_budget(self) -> None:
        alone_ns = self.batcher.latency.bound_ns(1, self.batcher.sizes.lengths[-1])
        feasible_ns = int(SMALLEST_BUDGET_IN_BATCHES * alone_ns) + SCHEDULING_ALLOWANCE_NS
        if self._budget_ns is not None and self._budget_ns < feasible_ns:
            self._report(
                f"WARNING: latency_budget_ms {self._budget_ns / 1e6:g} cannot be met on {self.model.device}: one "
                f"request alone takes {alone_ns / 1e6:.1f} ms. Serving with {feasible_ns / 1e6:.1f} ms instead"
            )
            self._budget_ns = feasible_ns

    def __repr__(self) -> str:
        queue, busy = self.batcher.queue, sum(map(len, self._in_flight))
        draining = "no" if self._accepting else "yes"
        counts = f"queue={len(queue)} requests, {queue.rows} rows, preparing={len(self._preparing)}"
        lost = f", lost: {self._lost}" if self._lost else ""
        return f"<Engine {self.spec.name} {counts}, batches in flight={busy}, draining={draining}{lost}>"
