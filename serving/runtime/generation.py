"""The engine for models that generate: any number of answers to one request, each sent as soon as it is there.

A generation holds one of a few seats from its first step to its last; who finds none waits by rank. All steps run in
one thread, the lane: a step goes to the end of the thread's line, so generations take turns by the step and a long one
does not hold up a short one. Why steps of different requests are not batched: docs/decisions/0010.
"""

import asyncio
import heapq
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from models.base import GeneratingModel, Tensors
from models.base import InvalidInput as UnusableInput
from serving.core.clock import Clock, SystemClock
from serving.core.errors import BatchTimeout, InvalidInput, LaneLost, ServingError
from serving.core.ledger import Ledger
from serving.core.observer import Observer, SilentObserver
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected, Timings
from serving.core.request import NO_DEADLINE_NS, rank
from serving.core.statistics import ModelStatistics
from serving.runtime.answers import as_model_error
from serving.runtime.bookkeeping import Bookkeeper
from serving.scaling.signals import Reading

UNREAD = 16  # answers that wait to be read; then the generation pauses
PRIORITY_STEP_NS = 1_000_000_000
ONE_BY_ONE = "this model gives any number of answers to a request: use ModelStreamInfer, generate or generate_stream"
_END = object()
T = TypeVar("T")


class Generation:
    """See `core.backend.Answers`."""

    def __init__(
        self, payload: Tensors, tenant: str, arrived_ns: int, withdraw: "Callable[[Generation], None]"
    ) -> None:
        self.payload = payload
        self.more: dict[str, object] = {}  # arguments for the model beside its inputs
        self.tenant = tenant
        self.arrived_ns = arrived_ns
        self.first_ns = 0  # from its arrival to the first answer
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
            self._answers.put_nowait(_END)  # whoever asks again is told again
            raise StopAsyncIteration
        self.room.release()
        return answer

    def cancel(self) -> None:
        if self.outcome is None:
            self._withdraw(self)

    def give(self, answer: object) -> None:
        self._answers.put_nowait(answer)

    def end(self, outcome: Outcome) -> None:
        assert self.outcome is None, "ended twice"
        self.outcome = outcome
        if self.expiry is not None:
            self.expiry.cancel()
        self._answers.put_nowait(_END)


class GeneratingEngine:
    """One generating model. Its verbs are those of `runtime.engine.Engine`, and `generate`.

    Time limits (the model's budget, the client's timeout) say how long a request may wait for its seat; what generates
    goes on until it ends or its client leaves.
    """

    def __init__(self, model: GeneratingModel, *, clock: Clock | None = None, observer: Observer | None = None) -> None:
        self.model = model
        self._observer = observer or SilentObserver()
        self.spec = model.spec
        self.ledger = Ledger()
        self._clock = clock or SystemClock()
        self._budget_ns = int(self.spec.latency_budget_ms * 1e6) if self.spec.latency_budget_ms else NO_DEADLINE_NS
        self._seats = self.spec.limits.max_generations
        self._books = Bookkeeper()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"lane-{self.spec.name}")
        self._waiting: list[tuple[int, int, Generation]] = []
        self._open: set[Generation] = set()
        self._generating = 0
        self._usual_ns = 100_000_000  # how long a generation holds its seat, as it has been lately
        self._count = 0
        self._accepting = False
        self._lost = ""
        self._empty = asyncio.Event()

    # -- life -------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._accepting = True

    async def drain(self, timeout_s: float) -> int:
        """Refuses newcomers, lets run what runs, fails the rest when time is up. Returns how many those were."""
        self._accepting = False
        if self._open:
            self._empty.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
            except TimeoutError:
                pass
        left = list(self._open)
        for generation in left:
            self._end(generation, Failed(LaneLost("the server shut down before the request was served")))
        return len(left)

    def close(self) -> None:
        self._accepting = False
        self._thread.shutdown(wait=False, cancel_futures=True)
        self.model.close()

    async def __aenter__(self) -> "GeneratingEngine":
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain(timeout_s=30.0)
        self.close()

    def statistics(self) -> ModelStatistics:
        return self._books.statistics

    def is_ready(self) -> bool:
        return self._accepting and not self._lost

    def check_health(self) -> None:
        """Raises `LaneLost` when this engine can serve no more and should be replaced."""
        if self._lost:
            raise LaneLost(self._lost)

    def reading(self) -> Reading:
        """How busy it is, for scaling. A generation counts as a row."""
        return Reading(
            at_ns=self._clock.now_ns(),
            queued=self.ledger.queued,
            wait_ns=self._usual_ns * self.ledger.queued // self._seats,
            busy_ns=self._books.statistics.compute_infer.ns,
            lanes=1,
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
        """See `core.backend.Generating.generate`."""
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
        rank_ns = rank(now_ns + limit_ns, priority, PRIORITY_STEP_NS)
        heapq.heappush(self._waiting, (rank_ns, self._count, generation))
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
            _, _, generation = heapq.heappop(self._waiting)
            if generation.outcome is None:
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
        """The way out for every accepted request, whether it waits or generates."""
        if generation.outcome is not None:
            return
        if generation.task is None:
            self.ledger.end_queued(outcome)
        else:
            self.ledger.end_in_flight(outcome)
            if generation.task is not asyncio.current_task():
                generation.task.cancel()
        self._open.discard(generation)
        generation.end(outcome)
        if type(outcome) is not Completed:
            self._books.failed()
            self._observer.request_ended(generation.tenant, outcome)
        if not self._open:
            self._empty.set()

    # -- generating -------------------------------------------------------------------------------------------

    async def _run(self, generation: Generation) -> None:
        began_ns = self._clock.now_ns()
        answers: Iterator[Tensors] | None = None
        try:
            answers = iter(
                await self._step(generation, lambda: self.model.generate(generation.payload, **generation.more))
            )
            while True:
                await generation.room.acquire()
                answer = await self._step(generation, lambda: next(answers, _END))
                if answer is _END:
                    break
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
                # Behind the step that may still run. A generator's own `finally` gives back what it holds.
                self._thread.submit(getattr(answers, "close", lambda: None))
            self._usual_ns += (self._clock.now_ns() - began_ns - self._usual_ns) // 8

    def _seat_is_free(self, task: "asyncio.Task[None]") -> None:
        self._generating -= 1
        self._fill_seats()

    async def _step(self, generation: Generation, work: Callable[[], T]) -> T:
        """Runs it in the lane. Raises BatchTimeout, and gives the lane up, if it does not come back."""

        def timed() -> tuple[T, int]:
            began_ns = self._clock.now_ns()
            try:
                return work(), self._clock.now_ns() - began_ns
            except (StopIteration, SystemExit, KeyboardInterrupt) as error:  # no future or event loop bears these
                raise as_model_error(error) from error

        limit_s = self.spec.limits.forward_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                done, took_ns = await self._loop.run_in_executor(self._thread, timed)
        except TimeoutError:
            self._lose(f"a step did not return within {limit_s:g} s")
            raise BatchTimeout(self._lost) from None
        generation.steps += 1
        generation.compute_ns += took_ns
        return done

    def _lose(self, why: str) -> None:
        self._lost = why
        for generation in list(self._open):
            if generation.task is not asyncio.current_task():
                self._end(generation, Failed(LaneLost(why)))

    # -- the backend's verb -----------------------------------------------------------------------------------

    def submit(self, payload: object, *, tenant: str = "", **_: Any) -> "Refused":
        """A request that expects exactly one answer is refused, as Triton does."""
        outcome = Failed(InvalidInput(ONE_BY_ONE))
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
        """It has ended."""
