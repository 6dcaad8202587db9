"""The engine for models with state: runs the requests of a sequence in order, each with the state that the one before
returned.

The state consists of tensors: the runtime adds it to the inputs and takes it from the outputs. So the model is a
function of its inputs, requests of different sequences share batches, and all else is as in `Engine`.
"""

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, cast

import numpy as np

from models.base import Model, Tensors
from models.spec import ModelSpec
from serving.core.backend import SequencePlace, Submitted
from serving.core.errors import InvalidInput
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Outcome, Reason, Rejected
from serving.runtime.engine import Engine


class Submission:
    """A `core.backend.Submitted` that first waits for the earlier requests of its sequence."""

    def __init__(
        self, payload: Tensors, arrived_ns: int, limits: dict[str, Any], withdraw: "Callable[[Submission], None]"
    ):
        self.payload = payload
        self.arrived_ns = arrived_ns
        self.limits = limits
        self.submitted: Submitted | None = None
        self.sequence: OpenSequence | None = None  # the sequence in which it waits
        self._withdraw = withdraw
        self._ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, Outcome]:
        try:
            return (yield from asyncio.shield(self._ended).__await__())
        except asyncio.CancelledError:
            self.cancel()
            raise

    def then(self, callback: Callable[[Outcome], None]) -> None:
        if self._ended.done():
            callback(self._ended.result())
        else:
            self._ended.add_done_callback(lambda ended: callback(ended.result()))

    def cancel(self) -> None:
        if self.submitted is not None:
            self.submitted.cancel()
        elif not self._ended.done():
            self._withdraw(self)

    def end(self, outcome: Outcome) -> None:
        self._ended.set_result(outcome)


class OpenSequence:
    """The state of one sequence, and its requests that wait for their turn."""

    def __init__(self, id: int | str, state: Tensors, rows: int) -> None:
        self.id = id
        self.state = state
        self.rows = rows
        self.waiting: dict[Submission, None] = {}  # in order of arrival
        self.is_busy = False
        self.used_ns = 0


class SequenceEngine(Engine):
    """The engine of one model with state.

    models: loaded from `spec.with_state()`.
    first_state: the state at the start of a sequence, one row of every state tensor.
    more: the other arguments of `Engine`.
    """

    def __init__(self, models: list[Model], spec: ModelSpec, first_state: Tensors, **more: Any) -> None:
        super().__init__(models, **more)
        self.spec = spec
        self._first_row = first_state
        self._idle_ns = int(spec.limits.sequence_idle_s * 1e9)
        self._sequences: dict[int | str, OpenSequence] = {}
        self._waiting = 0
        self._sweeper: asyncio.TimerHandle | None = None

    def submit(self, payload: object, *, tenant: str = "", **_: Any) -> Any:
        """Refuses the request: it belongs to no sequence, so that there is no state for it."""
        need = f"inference request to model '{self.spec.name}' must specify a non-zero or non-empty sequence_id"
        return self._refused(Failed(InvalidInput(need)), tenant)

    def submit_in(
        self, place: SequencePlace, payload: object, *, rows: int, tenant: str = "", **limits: Any
    ) -> Submitted:
        """Submits one request of a sequence, see `core.backend.Sequencing.submit_in`."""
        sequence = self._sequences.get(place.id)
        if place.starts:
            if sequence is None and len(self._sequences) >= self.spec.limits.max_sequences:
                return self._refused(Rejected(Reason.TOO_MANY_SEQUENCES, retry_after_ns=self._idle_ns), tenant)
            # Replaces an open sequence of this id; the requests that wait in it are still answered from its state.
            sequence = self._sequences[place.id] = OpenSequence(place.id, self._first_state(rows), rows)
        if sequence is None:
            return self._refused(Failed(InvalidInput(self._needs_start(place.id))), tenant)
        if rows != sequence.rows:
            text = f"the sequence has {sequence.rows} rows, this request {rows}"
            return self._refused(Failed(InvalidInput(text)), tenant)
        if self._waiting >= self.spec.limits.max_queue_requests:
            return self._refused(Rejected(Reason.QUEUE_FULL, retry_after_ns=1_000_000_000), tenant)
        if place.ends:
            del self._sequences[place.id]
        limits |= {"rows": rows, "tenant": tenant}
        submission = Submission(cast(Tensors, payload), self._clock.now_ns(), limits, self._withdraw_submission)
        sequence.waiting[submission] = None
        submission.sequence = sequence
        self._waiting += 1
        sequence.used_ns = submission.arrived_ns
        if not sequence.is_busy:
            self._take_next(sequence)
        if self._sweeper is None and self._sequences:
            self._sweeper = self._loop.call_later(self._idle_ns / 4e9, self._close_idle)
        return submission

    def facts(self) -> dict[str, Any]:
        return {"sequences": len(self._sequences), "waiting_for_their_turn": self._waiting}

    def _take_next(self, sequence: OpenSequence) -> None:
        """Submits the next waiting request to the engine's queue; expires those that waited for too long."""
        while sequence.waiting:
            submission = next(iter(sequence.waiting))
            del sequence.waiting[submission]
            self._waiting -= 1
            waited_ns = self._clock.now_ns() - submission.arrived_ns
            limit_ns = submission.limits.get("timeout_ns")
            if limit_ns is not None and waited_ns >= limit_ns:
                self._end_submission(submission, Expired(waited_ns))
                continue
            limits = submission.limits | {"timeout_ns": None if limit_ns is None else limit_ns - waited_ns}
            sequence.is_busy = True
            submission.submitted = super().submit(submission.payload | sequence.state, **limits)
            submission.submitted.then(partial(self._answered, sequence, submission))
            return

    def _answered(self, sequence: OpenSequence, submission: Submission, outcome: Outcome) -> None:
        if type(outcome) is Completed:
            values = cast(Tensors, outcome.value)
            # Copied: the outputs of a batch are views of one array, and one row would keep the whole array alive.
            sequence.state = _kept({name: np.array(values[name]) for name in self._first_row})
        sequence.is_busy = False
        sequence.used_ns = self._clock.now_ns()
        submission.end(outcome)
        # Not called directly: a run of waiting requests that are refused at once would recurse once per request.
        self._loop.call_soon(self._go_on, sequence)

    def _go_on(self, sequence: OpenSequence) -> None:
        if not sequence.is_busy:
            self._take_next(sequence)

    def _withdraw_submission(self, submission: Submission) -> None:
        assert submission.sequence is not None
        del submission.sequence.waiting[submission]
        self._waiting -= 1
        self._end_submission(submission, Cancelled())

    def _end_submission(self, submission: Submission, outcome: Outcome) -> None:
        """Ends a request that was never submitted to the engine's queue."""
        self.ledger.refuse(outcome)
        self._books.failed()
        self._observer.request_ended(submission.limits["tenant"], outcome)
        submission.end(outcome)

    def _refused(self, outcome: Outcome, tenant: str) -> Submission:
        submission = Submission({}, self._clock.now_ns(), {"tenant": tenant}, self._withdraw_submission)
        self._end_submission(submission, outcome)
        return submission

    def _first_state(self, rows: int) -> Tensors:
        rows_of_each = self._first_row.items()
        if not self.spec.batched:
            return _kept({name: row.copy() for name, row in rows_of_each})
        return _kept({name: np.repeat(row, rows, axis=0) for name, row in rows_of_each})

    def _needs_start(self, id: int | str) -> str:
        """Returns Triton's message for a sequence that is not open."""
        return (
            f"inference request for sequence {id} to model '{self.spec.name}' must specify the START flag on the first "
            "request of the sequence"
        )

    def _close_idle(self) -> None:
        """Closes the sequences that have had no request for `sequence_idle_s`."""
        now_ns = self._clock.now_ns()
        for sequence in list(self._sequences.values()):
            is_idle = not sequence.is_busy and not sequence.waiting
            if is_idle and now_ns - sequence.used_ns >= self._idle_ns:
                del self._sequences[sequence.id]
        self._sweeper = self._loop.call_later(self._idle_ns / 4e9, self._close_idle) if self._sequences else None

    def close(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        super().close()


def _kept(state: Tensors) -> Tensors:
    """Makes the state read-only, so that a request that fails leaves it unchanged."""
    for array in state.values():
        array.flags.writeable = False
    return state
