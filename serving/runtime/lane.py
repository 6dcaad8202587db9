"""A lane: one loaded model, one thread that computes and one that gets the next batch ready meanwhile.

The only place a model is called. Nothing is decided here but how to get the innocent of a failing batch answered.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from models.base import Bucket, DeviceLost, Model, OutOfDeviceMemory, Prepared
from serving.core.batch import Batch
from serving.core.clock import Clock
from serving.core.errors import LaneLost, ModelError, OutOfMemory, ServingError


@dataclass(slots=True)
class Forwarded:
    """What a lane made of a batch: (outputs, the requests they are for) per forward pass that worked, and errors.

    pieces: more than one when the batch had to be taken apart; indices refer to `batch.requests`.
    """

    batch: Batch
    pieces: list[tuple[dict[str, Any], range]] = field(default_factory=list)
    errors: dict[int, ServingError] = field(default_factory=dict)
    prepare_ns: int = 0
    compute_ns: int = 0
    done_ns: int = 0
    ran_out_of_memory: bool = False
    lost: bool = False

    def is_clean(self) -> bool:
        return len(self.pieces) == 1 and not self.errors


class Lane:
    """Two daemon threads over one model. `submit` hands over a batch; `on_done` is called from a lane thread.

    A forward pass that never returns cannot be ended from outside; its threads die with the process.
    """

    def __init__(self, model: Model, index: int, clock: Clock, on_done: Callable[[Forwarded], None]) -> None:
        self.model = model
        self.index = index
        self._clock = clock
        self._on_done = on_done
        self._to_prepare: SimpleQueue[Batch | None] = SimpleQueue()
        self._to_compute: SimpleQueue[tuple[Batch, object, int] | Callable[[], None] | None] = SimpleQueue()
        name = f"lane-{model.spec.name}-{index}"
        self._threads = [
            threading.Thread(target=self._prepare_batches, name=f"{name}-prepare", daemon=True),
            threading.Thread(target=self._compute_batches, name=f"{name}-compute", daemon=True),
        ]

    def open(self) -> None:
        for thread in self._threads:
            thread.start()

    def call(self, work: Callable[[], None]) -> None:
        """Runs `work` in the computing thread: loading and warming up happen where the model is used later."""
        self._to_compute.put(work)

    def submit(self, batch: Batch, *, lane_is_idle: bool) -> None:
        """An idle lane has nothing to overlap with: the batch skips a thread and is prepared where it is computed."""
        if lane_is_idle:
            self._to_compute.put((batch, None, 0))
        else:
            self._to_prepare.put(batch)

    def close(self) -> None:
        self._to_prepare.put(None)

    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _prepare_batches(self) -> None:
        while (batch := self._to_prepare.get()) is not None:
            began = self._clock.now_ns()
            try:
                staged = self._collate(_parts(batch), batch.padded_rows, batch.length)
            except Exception:  # collated again, and told apart, where failures are handled
                staged = None
            self._to_compute.put((batch, staged, self._clock.now_ns() - began))
        self._to_compute.put(None)

    def _compute_batches(self) -> None:
        while (job := self._to_compute.get()) is not None:
            if callable(job):
                job()
                continue
            batch, staged, prepare_ns = job
            done = Forwarded(batch, prepare_ns=prepare_ns)
            self._forward(done, staged, range(len(batch.requests)), batch.padded_rows)
            done.done_ns = self._clock.now_ns()
            self._on_done(done)

    def _collate(self, parts: Sequence[Prepared], padded_rows: int, length: int) -> object:
        return self.model.collate(parts, Bucket(padded_rows, length))

    def _forward(self, done: Forwarded, staged: object, members: range, padded_rows: int) -> None:
        """Computes these members; if that fails halves them, until whoever is to blame stands alone."""
        parts = [done.batch.requests[index].payload for index in members]
        began = self._clock.now_ns()
        try:
            if staged is None:
                staged = self._collate(parts, padded_rows, done.batch.length)  # type: ignore[arg-type]
                done.prepare_ns += self._clock.now_ns() - began
                began = self._clock.now_ns()
            done.pieces.append((self.model.forward(staged), members))
            done.compute_ns += self._clock.now_ns() - began
            return
        except DeviceLost as error:
            done.lost = True
            done.errors.update(dict.fromkeys(members, LaneLost(f"the device is lost: {error}")))
            return
        except OutOfDeviceMemory as error:
            done.ran_out_of_memory = True
            failure: ServingError = OutOfMemory(f"the device ran out of memory: {error}")
        except Exception as error:
            failure = ModelError(f"the model failed: {type(error).__name__}: {error}")
            failure.__cause__ = error
        done.compute_ns += self._clock.now_ns() - began
        if len(members) == 1:
            done.errors[members[0]] = failure
            return
        middle = len(members) // 2
        for half in (members[:middle], members[middle:]):
            if done.lost:
                done.errors.update(dict.fromkeys(half, LaneLost("the device was lost while the batch was computed")))
            else:
                rows = sum(done.batch.requests[index].rows for index in half)
                self._forward(done, None, half, rows)


def _parts(batch: Batch) -> list[Prepared]:
    return [request.payload for request in batch.requests]  # type: ignore[misc]
