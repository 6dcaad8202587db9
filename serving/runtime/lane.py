"""A lane: one loaded model, one thread that computes, and one that prepares the next batch meanwhile."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol

from models.base import Model
from serving.core.batch import Batch
from serving.core.clock import Clock
from serving.runtime.forwarding import Forwarded, forward, stage


class AnyLane(Protocol):
    """Two daemon threads over one model.

    A forward pass that never returns cannot be stopped. As daemons, its threads do not keep the process from exiting.
    """

    @property
    def model(self) -> Model: ...

    index: int

    def open(self) -> None: ...

    def call(self, work: Callable[[], None]) -> None:
        """Runs `work` in the computing thread, so that loading and warm-up happen where the model is used later."""
        ...

    def submit(self, batch: Batch, *, lane_is_idle: bool) -> None:
        """Submits a batch; `on_done` is called with its result in a lane thread."""
        ...

    def close(self) -> None: ...

    def is_alive(self) -> bool: ...


class Lane:
    """An `AnyLane` for models that compute synchronously: one thread collates ahead, one computes."""

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
        self._to_compute.put(work)

    def submit(self, batch: Batch, *, lane_is_idle: bool) -> None:
        """Submits a batch. If the lane is idle, there is nothing to overlap with, so that one thread prepares and
        computes the batch."""
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
                staged = stage(self.model, batch)
            except BaseException:  # `forward` collates it again and handles the failure
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
            forward(self.model, self._clock, done, range(len(batch.requests)), batch.padded_rows, staged)
            done.done_ns = self._clock.now_ns()
            self._on_done(done)
