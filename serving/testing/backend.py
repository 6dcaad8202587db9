"""A backend without a model: gives scripted answers and records the submitted requests."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.core.errors import ModelError
from serving.core.outcome import Cancelled, Completed, Failed, Outcome, Timings
from serving.core.statistics import BatchStatistics, ModelStatistics

Arrays = Mapping[str, np.ndarray]
QUEUE_NS = 1_000_000
TIMINGS = Timings(prepare_ns=10_000, compute_ns=2_000_000, finish_ns=10_000, batch_rows=1)


@dataclass(frozen=True, slots=True)
class Submission:
    """The arguments of one call of `EchoBackend.submit`."""

    payload: Arrays
    rows: int
    tenant: str
    priority: int
    timeout_ns: int | None
    age_ns: int = 0


class EchoTicket:
    """A `core.backend.Submitted` whose request runs as a task of its own."""

    def __init__(self, outcome: Coroutine[Any, Any, Outcome]) -> None:
        self._task = asyncio.get_running_loop().create_task(outcome)

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self._task.__await__()

    def then(self, callback: Callable[[Outcome], None]) -> None:
        self._task.add_done_callback(lambda task: callback(Cancelled() if task.cancelled() else task.result()))

    def cancel(self) -> None:
        self._task.cancel()


class EchoBackend:
    """A backend that answers with its inputs under the same names, or with the result of `answer(inputs)`.

    script: the outcomes of the first requests, one per request.
    `hold()` keeps requests waiting until `release()`; `cancelled` counts those withdrawn meanwhile.
    """

    def __init__(self, answer: Callable[[Arrays], Arrays] | None = None, script: Sequence[Outcome] = ()) -> None:
        self.submissions: list[Submission] = []
        self.script: list[Outcome] = list(script)
        self.ready = True
        self.cancelled = 0
        self.waiting = 0
        self._answer = answer or (lambda inputs: inputs)
        self._open: asyncio.Event | None = None
        self._held = False
        self._statistics = ModelStatistics()

    def hold(self) -> None:
        self._held = True
        self._open = None

    def stop_holding(self) -> None:
        """Lets later requests pass while those that wait go on waiting. May be called from any thread."""
        self._held = False

    def release(self) -> None:
        """Lets all requests pass. Call it on the event loop."""
        self._held = False
        if self._open is not None:
            self._open.set()

    def submit(
        self,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        parameters: Mapping[str, object] | None = None,
    ) -> "EchoTicket":
        assert isinstance(payload, dict)
        self.submissions.append(Submission(payload, rows, tenant, priority, timeout_ns, age_ns))
        return EchoTicket(self._outcome(payload, rows))

    async def _outcome(self, payload: Arrays, rows: int) -> Outcome:
        if self._held:
            self._open = self._open or asyncio.Event()
            self.waiting += 1
            try:
                await self._open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        if self.script:
            return self.script.pop(0)
        try:
            answer = self._answer(payload)
        except Exception as error:
            return Failed(ModelError(f"the model failed: {type(error).__name__}: {error}"))
        self._count(rows)
        return Completed(answer, QUEUE_NS, TIMINGS)

    def _count(self, rows: int) -> None:
        counts = self._statistics
        counts.inference_count += rows
        counts.execution_count += 1
        counts.success.add(3_000_000)
        counts.queue.add(QUEUE_NS)
        counts.compute_input.add(TIMINGS.prepare_ns)
        counts.compute_infer.add(TIMINGS.compute_ns)
        counts.compute_output.add(TIMINGS.finish_ns)
        batch = counts.by_batch_rows.setdefault(rows, BatchStatistics())
        batch.compute_infer.add(TIMINGS.compute_ns)

    def statistics(self) -> ModelStatistics:
        return self._statistics

    def is_ready(self) -> bool:
        return self.ready
