"""The engine: takes requests on the event loop, queues them for the driver's lanes, settles every request once."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from models.base import Model, Prepared, Tensors
from models.cores import ControlGroup
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.clock import Clock, RunningClock, SystemClock
from serving.core.errors import BatchTimeout, LaneLost, ServingError
from serving.core.intake import Intake, least_in_flight
from serving.core.latency import LatencyModel
from serving.core.observer import NullObserver, Observer
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected, Timings
from serving.core.pace import Pace
from serving.core.preparing import Preparing
from serving.core.request import NO_DEADLINE_NS, RETURN_PART, Request, rank
from serving.core.sizes import LARGEST_ROWS, Sizes
from serving.core.statistics import ModelStatistics
from serving.runtime.answers import prepared, split_one_by_one_if_need_be
from serving.runtime.bookkeeping import Bookkeeper
from serving.runtime.driver import Driver, hop_ns
from serving.runtime.forwarding import Forwarded
from serving.runtime.life import Life
from serving.runtime.methods import MethodThreads
from serving.runtime.pacing import Pacer
from serving.runtime.ticket import ENDED, IN_FLIGHT, PREPARING, QUEUED, Ticket
from serving.scaling.signals import Reading

WOULD_HAVE_HELPED = (Reason.QUEUE_FULL, Reason.DEADLINE_HOPELESS)  # refusals that more replicas would have prevented
PRIORITY_STEP_NS = 1_000_000_000  # waiting time that equals one priority level, for models without a latency budget
SMALLEST_BUDGET_IN_BATCHES = 2.5  # with a smaller budget, even a request alone would be refused
RETURNS_REMEMBERED = 64  # requests over which the return time is averaged
SCHEDULING_ALLOWANCE_NS = 2_000_000  # for switching between event loop and threads, whatever the model does


class Engine(Life):
    """One model on one or more lanes, and the queue in front of them.

    models: one loaded model per lane.
    weights: share of device time by tenant.
    prepare_threads: number of threads for a model's own `prepare` and `finish`; none are started without those.
    batches_per_lane: 2 to prepare one batch while another is computed, 1 to have one batch at a time.
    groups: the control groups whose CPU quotas limit the model's computing, see `core/pace.py`.
    report: called with a line of text at each step of the warm-up.
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
        groups: Sequence[ControlGroup] = (),
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__()
        self.model = models[0]
        self.spec = self.model.spec
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._report = report
        self._budget_ns = int(self.spec.latency_budget_ms * 1e6) if self.spec.latency_budget_ms else None
        lengths = self.model.lengths()
        pace = Pace(self._budget_ns or 0)
        self.batcher = Batcher(
            LatencyModel(lengths=lengths),
            Sizes(
                largest_rows=self.spec.max_batch_rows or LARGEST_ROWS,
                lengths=lengths,
                alike=all(tensor.rows_alike for tensor in self.spec.inputs),
            ),
            lane_count=len(models),
            max_requests=self.spec.limits.max_queue_requests,
            weights=weights,
            lead_ns=hop_ns(self.model),
            batches_per_lane=batches_per_lane,
            fills_ahead=self.model.asynchronous,
            pace=pace,
        )
        pacer = Pacer(pace, groups) if groups and self._budget_ns else None
        self._driver = Driver(models, self.batcher, self._clock, self, None if clock else RunningClock(), pacer)
        self._books = Bookkeeper()
        self._open_tickets: set[Ticket] = set()
        self._preparing = 0
        self._finishing = 0
        self._return_ns = 0  # average age of requests at their submission, taken as the return time of their answers
        self._methods = MethodThreads(
            prepare_threads if self.model.prepares or self.model.finishes else 0,
            self.spec.name,
            self._clock,
            Preparing(self.batcher),
            limit_s=self.spec.limits.forward_timeout_s,
            on_expired=self.requests_expired,
            on_stuck=self._give_up,
        )
        self._last_id = 0
        self.intake: Intake | None = None  # of a model with a latency budget

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Starts the lanes and warms them up; returns when the engine accepts requests."""
        self._loop = asyncio.get_running_loop()
        await self._driver.open(budget_ns=self._budget_ns, report=self._report)
        if self.batcher.pace.is_limited:
            self._report(
                f"the container's CPU quota of {self.batcher.pace.cores:g} cores can stop it for a large part of the "
                "latency budget: batches are spaced so that the quota is not used up"
            )
        self._raise_hopeless_budget()
        self.intake = self._intake(self._budget_ns) if self._budget_ns else None
        self._methods.open(budget_ns=self._budget_ns)
        self._accepting = True

    def _intake(self, budget_ns: int) -> Intake:
        least = partial(least_in_flight, self.batcher.latency, self.batcher.sizes, budget_ns)
        return Intake(budget_ns, cheap=not self.model.prepares, least=least, pace=self.batcher.pace)

    def close(self) -> None:
        """Ends the threads. Call `drain` first."""
        self._accepting = False
        self._driver.close()
        self._methods.close()
        self._fail_all(LaneLost("the server is shutting down"))

    def _end_open(self, outcome: Outcome) -> int:
        tickets = list(self._open_tickets)
        for ticket in tickets:
            self._end(ticket, outcome)
        return len(tickets)

    # -- the backend's methods --------------------------------------------------------------------------------

    def submit(
        self,
        payload: Any,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        parameters: Mapping[str, object] | None = None,
    ) -> Ticket:
        """Submits one request, see `core.backend.Backend.submit`."""
        now_ns = self._clock.now_ns()
        self._return_ns += (age_ns - self._return_ns) // RETURNS_REMEMBERED
        ticket = self._ticket(payload, rows, tenant, priority, timeout_ns, now_ns - age_ns)
        refusal = self._refusal(ticket, now_ns)
        if refusal is not None:
            self._refuse(ticket, refusal, now_ns)
            return ticket
        self.ledger.receive()
        self._open_tickets.add(ticket)
        if self.model.prepares:
            ticket.phase = PREPARING
            self._preparing += 1
            work = partial(prepared, self.model, payload, parameters)
            self._methods.prepare(ticket, work, partial(self._offer_or_fail, ticket))
        else:
            self._offer_or_fail(ticket, prepared(self.model, payload, parameters))
        return ticket

    def kept_out(self, count: int) -> None:
        """Counts requests that HAProxy has refused in place of this replica."""
        self.ledger.refuse(Rejected(Reason.OVERLOAD, 0), count)
        self._books.failed(count)
        self._books.missed_out(count)
        self._observer.requests_kept_out(count)

    def statistics(self) -> ModelStatistics:
        return self._books.statistics

    def reading(self) -> Reading:
        """Returns a snapshot of queue and load, for scaling."""
        now_ns = self._clock.now_ns()
        return Reading(
            at_ns=now_ns,
            queued=self.ledger.queued,
            wait_ns=self.batcher.backlog_ns(self.batcher.sizes.lengths[-1]),
            busy_ns=self._books.busy_ns + self._driver.under_way_ns(now_ns),
            lanes=self.lane_count,
            rows=self._books.statistics.inference_count,
            row_ns=self.batcher.row_ns(),
            received=self.ledger.received,
            missed=self._books.missed,
        )

    def is_ready(self) -> bool:
        return self._accepting and not self._driver.lost

    @property
    def budget_ms(self) -> float | None:
        """The latency budget in force, in ms; at the start it is raised if the declared one cannot be met."""
        return None if self._budget_ns is None else self._budget_ns / 1e6

    @property
    def lane_count(self) -> int:
        return self._driver.lane_count

    def batches_in_flight(self) -> int:
        return self._driver.batches_in_flight()

    def check_health(self) -> None:
        """Raises `LaneLost` if the engine cannot serve any more and should be replaced."""
        if self._driver.lost:
            raise LaneLost(self._driver.lost)
        dead = self._driver.dead_lane()
        if dead is not None:
            raise LaneLost(f"a thread of lane {dead} has died")
        if not self._methods.is_alive():
            raise LaneLost("a thread for the model's own `prepare` and `finish` has died")

    # -- requests come and go ---------------------------------------------------------------------------------

    def _ticket(
        self, payload: object, rows: int, tenant: str, priority: int, timeout_ns: int | None, began_ns: int
    ) -> Ticket:
        """Creates a ticket. Its deadline is earlier than the client's by the return time of the answer, which is
        assumed to equal the average age of requests at their submission, but by no more than a share of the limit."""
        self._last_id += 1
        limit_ns = self._budget_ns or NO_DEADLINE_NS
        expires_ns = began_ns + (timeout_ns or NO_DEADLINE_NS)
        if timeout_ns and timeout_ns < limit_ns:
            limit_ns = timeout_ns
        if limit_ns < NO_DEADLINE_NS:
            limit_ns -= min(self._return_ns, limit_ns // RETURN_PART)
        deadline_ns = began_ns + limit_ns
        rank_ns = rank(began_ns, deadline_ns, priority, self._budget_ns or PRIORITY_STEP_NS)
        return Ticket(self._last_id, tenant, rows, began_ns, deadline_ns, expires_ns, rank_ns, payload, self._withdraw)

    def _refusal(self, ticket: Ticket, now_ns: int) -> Outcome | None:
        if self._driver.lost:
            return Failed(LaneLost(self._driver.lost))
        if not self._accepting:
            return Rejected(Reason.DRAINING, retry_after_ns=1_000_000_000)
        if ticket.expires_ns <= now_ns:
            return Expired(waited_ns=now_ns - ticket.arrived_ns)
        return self.batcher.admit(ticket, now_ns, self._preparing + self._finishing)

    def _refuse(self, ticket: Ticket, refusal: Outcome, now_ns: int) -> None:
        self.ledger.refuse(refusal)
        self._books.failed()
        if isinstance(refusal, Expired) or (isinstance(refusal, Rejected) and refusal.reason in WOULD_HAVE_HELPED):
            self._missed_out([ticket], now_ns)
        self._observer.request_ended(ticket.tenant, refusal)
        ticket.settle(refusal)

    def _offer_or_fail(self, ticket: Ticket, part: Prepared | ServingError) -> None:
        if isinstance(part, ServingError):
            self._end(ticket, Failed(part))
            return
        if ticket.phase is PREPARING:
            self._preparing -= 1
            ticket.phase = QUEUED
        ticket.payload = part
        ticket.group = part.group
        ticket.length = part.length
        self.batcher.offer(ticket)
        self._driver.pump_soon()

    def _withdraw(self, ticket: Ticket) -> None:
        self._end(ticket, Cancelled())

    def _end(self, ticket: Ticket, outcome: Outcome) -> None:
        """Ends an accepted request, in any phase, with an outcome other than Completed (see `_complete` for that)."""
        if ticket.phase is IN_FLIGHT:
            self.ledger.end_in_flight(outcome)
        else:
            self.ledger.end_queued(outcome)
            if ticket.phase is PREPARING:
                self._preparing -= 1
                self._methods.withdraw(ticket)
            else:
                self.batcher.cancel(ticket)
                self._methods.fill()
        self._open_tickets.discard(ticket)
        self._books.failed()
        self._observer.request_ended(ticket.tenant, outcome)
        ticket.settle(outcome)
        self._notice_if_drained()

    # -- notifications of the driver: the engine is its `Owner` -----------------------------------------------

    def batch_departed(self, batch: Batch) -> None:
        self.ledger.depart(len(batch.requests))
        for ticket in _tickets(batch.requests):
            ticket.phase = IN_FLIGHT
        self._methods.fill()

    def batch_returned(self, done: Forwarded, occupied_ns: int) -> None:
        self._observer.batch_settled(done.batch, occupied_ns, done.copy_ns, done.copy_back_ns)
        self._books.executed(done.batch, done, occupied_ns, self._clock.now_ns())
        if done.ran_out_of_memory:
            self._observer.batch_limit_halved(self.batcher.sizes.largest_rows)
        tickets = _tickets(done.batch.requests)
        for index, error in done.errors.items():
            self._fail(tickets[index], error)
        for outputs, members in done.pieces:
            piece_tickets = tickets[members.start : members.stop]
            if self.model.finishes:
                work = partial(split_one_by_one_if_need_be, self.model, outputs, piece_tickets)
                self._finishing += len(piece_tickets)
                self._methods.finish(work, partial(self._finished, piece_tickets, done))
            else:
                self._complete(piece_tickets, done, split_one_by_one_if_need_be(self.model, outputs, piece_tickets))

    def requests_expired(self, requests: Sequence[Request], now_ns: int) -> None:
        self._missed_out(requests, now_ns)
        for ticket in _tickets(requests):
            self._end(ticket, Expired(waited_ns=now_ns - ticket.arrived_ns))

    def lane_lost(self, lane_index: int, why: str, batches: Sequence[Batch]) -> None:
        """Fails the batches of the lane, and all waiting requests too, since this replica will be replaced."""
        self._observer.lane_lost(lane_index, why)
        for batch in batches:
            for ticket in _tickets(batch.requests):
                self._fail(ticket, BatchTimeout(why))
        for ticket in [one for one in self._open_tickets if one.phase is not IN_FLIGHT]:
            self._fail(ticket, LaneLost(why))

    def _finished(
        self, piece_tickets: Sequence[Ticket], done: Forwarded, answers: Sequence[Tensors | ServingError]
    ) -> None:
        self._finishing -= len(piece_tickets)
        self._complete(piece_tickets, done, answers)

    def _complete(
        self, piece_tickets: Sequence[Ticket], done: Forwarded, answers: Sequence[Tensors | ServingError]
    ) -> None:
        """Settles the requests of one forward pass. Skips those that have ended meanwhile: their clients cancelled, or
        their lane was given up."""
        now_ns = self._clock.now_ns()
        finish_ns = now_ns - done.done_ns
        timings = Timings(done.prepare_ns, done.compute_ns, finish_ns, done.batch.rows)
        cut_ns = done.batch.cut_ns
        completed: list[Ticket] = []
        outcomes: list[Completed] = []
        waits_ns: list[int] = []
        for ticket, answer in zip(piece_tickets, answers, strict=True):
            if isinstance(answer, ServingError):
                self._fail(ticket, answer)
            elif ticket.phase is IN_FLIGHT:
                ticket.phase = ENDED
                queue_ns = cut_ns - ticket.arrived_ns
                completed.append(ticket)
                outcomes.append(Completed(answer, queue_ns, timings))
                waits_ns.append(queue_ns)
        if completed:
            self.ledger.complete(len(completed))
            self._books.completed(len(completed), sum(waits_ns), timings)
            self._observer.requests_completed(completed, waits_ns, timings)
            if self.intake is not None:
                late = sum([ticket.deadline_ns < now_ns and self._waits_for_budget(ticket) for ticket in completed])
                self.intake.ended(now_ns, len(self._open_tickets), completed=len(completed) - late, missed=late)
        self._open_tickets.difference_update(piece_tickets)
        for ticket, outcome in zip(completed, outcomes, strict=True):
            ticket.settle(outcome)
        self.batcher.answered(self._clock.now_ns() - done.done_ns)
        self._notice_if_drained()

    def _missed_out(self, requests: Sequence[Request], now_ns: int) -> None:
        """Counts requests that were refused or given up because of their deadlines."""
        self._books.missed_out(len(requests))
        if self.intake is not None:
            missed = sum(map(self._waits_for_budget, requests))
            self.intake.ended(now_ns, len(self._open_tickets), missed=missed)

    def _waits_for_budget(self, request: Request) -> bool:
        """Returns whether the client waits as long as the model's budget. If not, missing its deadline says nothing
        about the load: otherwise one client with hopeless timeouts could lower the bound for all."""
        return request.expires_ns - request.arrived_ns >= (self._budget_ns or 0)

    def _fail(self, ticket: Ticket, error: ServingError) -> None:
        if ticket.phase is not ENDED:
            self._end(ticket, Failed(error))

    def _give_up(self) -> None:
        """Stops dispatching and fails all requests because a `prepare` or `finish` does not return."""
        why = f"the model's own `prepare` or `finish` did not return within {self.spec.limits.forward_timeout_s:g} s"
        self._driver.give_up(why)
        self._fail_all(LaneLost(why))

    def _fail_all(self, error: ServingError) -> None:
        for ticket in list(self._open_tickets):
            self._fail(ticket, error)

    def _raise_hopeless_budget(self) -> None:
        """Raises the latency budget to one that can be met, with a warning, if the measured times show that it cannot
        be met."""
        alone_ns = self.batcher.latency.bound_ns(1, self.batcher.sizes.lengths[-1])
        feasible_ns = int(SMALLEST_BUDGET_IN_BATCHES * alone_ns) + SCHEDULING_ALLOWANCE_NS
        if self._budget_ns is not None and self._budget_ns < feasible_ns:
            self._report(
                f"WARNING: latency_budget_ms {self._budget_ns / 1e6:g} cannot be met on {self.model.device}: one "
                f"request alone takes {alone_ns / 1e6:.1f} ms. Serving with {feasible_ns / 1e6:.1f} ms instead"
            )
            self._budget_ns = feasible_ns

    def __repr__(self) -> str:
        queue, draining = self.batcher.queue, "no" if self._accepting else "yes"
        counts = f"queue={len(queue)} requests, {queue.rows} rows, preparing={self._preparing}"
        lost = f", lost: {self._driver.lost}" if self._driver.lost else ""
        busy = self._driver.batches_in_flight()
        return f"<Engine {self.spec.name} {counts}, batches in flight={busy}, draining={draining}{lost}>"


def _tickets(requests: Sequence[Request]) -> list[Ticket]:
    """Casts requests that come from the batcher: they are the tickets that were offered to it."""
    return cast(list[Ticket], requests)
