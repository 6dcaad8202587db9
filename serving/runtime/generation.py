"""The engine for generating models: any number of answers to one request, each sent as soon as it exists.

A generation holds one of a few seats from its first step to its last; without a free seat it waits, ordered by rank.
The steps run as `runtime/steps.py` describes: in one thread, in which generations take turns step by step, so that a
long one causes no head-of-line blocking, or concurrently. docs/decisions/0010 explains why steps of different requests
are not batched.
"""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Mapping
from operator import attrgetter
from typing import Any, cast

from models.base import GeneratingModel, Tensors
from models.base import InvalidInput as UnusableInput
from serving.core.clock import Clock, SystemClock
from serving.core.errors import BatchTimeout, InvalidInput, LaneLost, NotOneAnswer, ServingError
from serving.core.observer import NullObserver, Observer
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected, Timings
from serving.core.request import NO_DEADLINE_NS, rank
from serving.core.statistics import ModelStatistics
from serving.runtime.answers import as_model_error
from serving.runtime.bookkeeping import Bookkeeper
from serving.runtime.checking import check_generated
from serving.runtime.life import Life
from serving.runtime.steps import NO_MORE, Step, steps_of
from serving.scaling.signals import Reading

UNREAD = 16  # answers that may wait to be read; with so many, the generation pauses (backpressure)
PRIORITY_STEP_NS = 1_000_000_000
# Begins with Triton's message, which clients look for.
ONE_BY_ONE = (
    "ModelInfer RPC doesn't support models with decoupled transaction policy, nor does infer over HTTP: "
    "use ModelStreamInfer, generate or generate_stream"
)
_END = object()
by_place = attrgetter("place")


class Generation:
    """One request and its answers, the `core.backend.Answers` that its caller iterates over."""

    def __init__(
        self, payload: Tensors, tenant: str, arrived_ns: int, withdraw: "Callable[[Generation], None]"
    ) -> None:
        self.payload = payload
        self.more: dict[str, object] = {}  # arguments for the model in addition to its inputs
        self.tenant = tenant
        self.arrived_ns = arrived_ns
        self.place = (0, 0)  # rank, then order of arrival
        self.first_ns = 0  # time from the arrival to the first answer
        self.given = 0
        self.outcome: Outcome | None = None
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self.steps = 0
        self.compute_ns = 0
        self.room = asyncio.Semaphore(UNREAD)
        self._answers: asyncio.Queue[object] = asyncio.Queue()
        self._withdraw = withdraw

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> object:
        answer = await self._answers.get()
        if answer is _END:
            self._answers.put_nowait(_END)  # every further call ends in the same way
            raise StopAsyncIteration
        self.room.release()
        return answer

    def cancel(self) -> None:
        if self.outcome is None:
            self._withdraw(self)

    def took(self, step: Step) -> Any:
        """Counts a step and its time; returns its result."""
        self.steps += 1
        self.compute_ns += step.took_ns
        return step.result

    def give(self, answer: object) -> None:
        self._answers.put_nowait(answer)

    def end(self, outcome: Outcome) -> None:
        assert self.outcome is None, "ended twice"
        self.outcome = outcome
        self.payload = {}  # the caller may keep this object for long
        if self.expiry is not None:
            self.expiry.cancel()
        self._answers.put_nowait(_END)


class GeneratingEngine(Life):
    """The engine of one generating model. It has the methods of `runtime.engine.Engine`, and `generate`.

    Time limits (the model's budget, the client's timeout) bound only how long a request waits for a seat; a running
    generation continues until it ends or its client cancels it.
    """

    def __init__(self, model: GeneratingModel, *, clock: Clock | None = None, observer: Observer | None = None) -> None:
        super().__init__()
        self.model = model
        self._observer = observer or NullObserver()
        self.spec = model.spec
        self._clock = clock or SystemClock()
        self._budget_ns = int(self.spec.latency_budget_ms * 1e6) if self.spec.latency_budget_ms else NO_DEADLINE_NS
        self._seats = self.spec.limits.max_generations
        self._books = Bookkeeper()
        limit_s = self.spec.limits.forward_timeout_s
        self._steps = steps_of(model, self._clock, limit_s=limit_s, on_stuck=self._lose)
        self._waiting: list[Generation] = []
        self._open: set[Generation] = set()
        self._generating = 0
        self._usual_ns = 100_000_000  # moving average of how long a generation holds its seat
        self._count = 0
        self._lost = ""

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps.open()
        self._accepting = True

    def close(self) -> None:
        self._accepting = False
        self._steps.close()
        self.model.close()

    def _end_open(self, outcome: Outcome) -> int:
        generations = list(self._open)
        for generation in generations:
            self._end(generation, outcome)
        return len(generations)

    def statistics(self) -> ModelStatistics:
        return self._books.statistics

    def is_ready(self) -> bool:
        return self._accepting and not self._lost

    def check_health(self) -> None:
        """Raises `LaneLost` if the engine cannot serve any more and should be replaced."""
        if self._lost:
            raise LaneLost(self._lost)

    def reading(self) -> Reading:
        """Returns a snapshot of queue and load, for scaling. A generation counts as one row."""
        return Reading(
            at_ns=self._clock.now_ns(),
            queued=self.ledger.queued,
            wait_ns=self._usual_ns * self.ledger.queued // self._seats,
            busy_ns=self._books.statistics.compute_infer.ns,
            lanes=self._seats if self.model.waits else 1,  # steps that wait run concurrently
            rows=self._books.statistics.inference_count,
            row_ns=self._usual_ns // self._seats,
            received=self.ledger.received,
            missed=self._books.missed,
        )

    def facts(self) -> dict[str, Any]:
        return {"max_generations": self._seats, "generating": self._generating, "waiting": self.ledger.queued}

    # -- requests come and go ---------------------------------------------------------------------------------

    def generate(
        self,
        payload: object,
        *,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Generation:
        """Submits one request, see `core.backend.Generating.generate`."""
        now_ns = self._clock.now_ns()
        generation = Generation(cast(Tensors, payload), tenant, now_ns, self._withdraw)
        generation.more = {} if parameters is None else {"parameters": parameters}
        if refusal := self._refusal():
            self._refuse(tenant, refusal)
            if isinstance(refusal, Rejected) and refusal.reason is Reason.QUEUE_FULL:
                self._books.missed_out(1)
            generation.end(refusal)
            return generation
        self.ledger.receive()
        self._open.add(generation)
        self._count += 1
        limit_ns = min(self._budget_ns, timeout_ns or NO_DEADLINE_NS)
        rank_ns = rank(now_ns, now_ns + limit_ns, priority, PRIORITY_STEP_NS)
        generation.place = (rank_ns, self._count)
        insort(self._waiting, generation, key=by_place)
        self._fill_seats()
        if generation.task is None and limit_ns < NO_DEADLINE_NS:
            generation.expiry = self._loop.call_later(limit_ns / 1e9, self._expire, generation)
        return generation

    def _refuse(self, tenant: str, refusal: Outcome) -> None:
        self.ledger.refuse(refusal)
        self._books.failed()
        self._observer.request_ended(tenant, refusal)

    def _refusal(self) -> Outcome | None:
        if self._lost:
            return Failed(LaneLost(self._lost))
        if not self._accepting:
            return Rejected(Reason.DRAINING, retry_after_ns=1_000_000_000)
        if self.ledger.queued >= self.spec.limits.max_queue_requests:
            return Rejected(Reason.QUEUE_FULL, retry_after_ns=self._usual_ns * self.ledger.queued // self._seats)
        return None

    def _fill_seats(self) -> None:
        while self._waiting and self._generating < self._seats:
            generation = self._waiting.pop(0)
            self._generating += 1
            self.ledger.depart(1)
            generation.task = self._loop.create_task(self._run(generation))
            generation.task.add_done_callback(self._seat_is_free)

    def _expire(self, generation: Generation) -> None:
        if generation.task is None:
            self._books.missed_out(1)
            self._end(generation, Expired(self._clock.now_ns() - generation.arrived_ns))

    def _withdraw(self, generation: Generation) -> None:
        self._end(generation, Cancelled())

    def _end(self, generation: Generation, outcome: Outcome) -> None:
        """Ends an accepted request, waiting or generating; does nothing if it has ended already."""
        if generation.outcome is not None:
            return
        if generation.task is None:
            self.ledger.end_queued(outcome)
            del self._waiting[bisect_left(self._waiting, generation.place, key=by_place)]
        else:
            self.ledger.end_in_flight(outcome)
            if generation.task is not asyncio.current_task():
                generation.task.cancel()
        self._open.discard(generation)
        generation.end(outcome)
        if type(outcome) is not Completed:
            self._books.failed()
            self._observer.request_ended(generation.tenant, outcome)
        self._notice_if_drained()

    # -- generating -------------------------------------------------------------------------------------------

    async def _run(self, generation: Generation) -> None:
        """Runs one generation from its first step to its outcome. Every error becomes the outcome."""
        began_ns = self._clock.now_ns()
        answers: Any = None
        try:
            answers = generation.took(await self._steps.begin(generation.payload, generation.more))
            while True:
                await generation.room.acquire()
                answer = generation.took(await self._steps.next_of(answers))
                if answer is NO_MORE:
                    break
                check_generated(answer, self.spec)
                if not generation.given:
                    generation.first_ns = self._clock.now_ns() - generation.arrived_ns
                generation.given += 1
                generation.give(answer)
            timings = Timings(0, generation.compute_ns, 0, 1)
            queue_ns = began_ns - generation.arrived_ns
            self._books.generated(generation.steps, queue_ns, timings)
            total_ns = self._clock.now_ns() - generation.arrived_ns
            self._observer.generated(generation.tenant, queue_ns, generation.first_ns, total_ns, generation.given)
            self._end(generation, Completed(None, queue_ns, timings))
        except UnusableInput as error:
            self._end(generation, Failed(InvalidInput(str(error))))
        except ServingError as error:
            self._end(generation, Failed(error))
        except Exception as error:
            self._end(generation, Failed(as_model_error(error)))
        finally:
            if answers is not None and not self._lost:
                self._steps.end(answers)
            self._usual_ns += (self._clock.now_ns() - began_ns - self._usual_ns) // 8

    def _seat_is_free(self, task: "asyncio.Task[None]") -> None:
        self._generating -= 1
        self._fill_seats()

    def _lose(self) -> None:
        """Fails all requests because a step does not return. This replica will be replaced."""
        self._lost = f"a step did not return within {self.spec.limits.forward_timeout_s:g} s"
        for generation in list(self._open):
            self._end(generation, Failed((BatchTimeout if generation.task else LaneLost)(self._lost)))

    # -- the backend's method ---------------------------------------------------------------------------------

    def submit(self, payload: object, *, tenant: str = "", **_: Any) -> "Refused":
        """Refuses the request, since it expects exactly one answer. Triton does so too."""
        outcome = Failed(NotOneAnswer(ONE_BY_ONE))
        self._refuse(tenant, outcome)
        return Refused(outcome)

    def __repr__(self) -> str:
        lost = f", lost: {self._lost}" if self._lost else ""
        return f"<GeneratingEngine {self.spec.name} generating={self._generating}, waiting={self.ledger.queued}{lost}>"


class Refused:
    """A `core.backend.Submitted` that ended before it began."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        yield from ()
        return self._outcome

    def then(self, callback: Callable[[Outcome], None]) -> None:
        callback(self._outcome)

    def cancel(self) -> None:
        """Does nothing: the request has ended."""
