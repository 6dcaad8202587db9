"""A lane for a device that computes asynchronously: batches are queued on it ahead of time.

One thread collates and launches; the other waits for the launched batches and fetches their outputs. So the next batch
is in the device's queue before the current one is done, and `collate`, `launch` and `forward` still run in one thread.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from models.base import DeviceLost, PipelinedModel
from serving.core.batch import Batch
from serving.core.clock import Clock
from serving.runtime.checking import check_batch
from serving.runtime.forwarding import Forwarded, halve, stage

Launched = tuple[Forwarded, object]
Failed = tuple[Forwarded, BaseException]


class PipelinedLane:
    """An `AnyLane` for models that are `asynchronous`."""

    def __init__(self, model: PipelinedModel, index: int, clock: Clock, on_done: Callable[[Forwarded], None]) -> None:
        self.model = model
        self.index = index
        self._clock = clock
        self._on_done = on_done
        self._to_launch: SimpleQueue[Batch | Failed | Callable[[], None] | None] = SimpleQueue()
        self._to_collect: SimpleQueue[Launched | None] = SimpleQueue()
        name = f"lane-{model.spec.name}-{index}"
        self._threads = [
            threading.Thread(target=self._launch_batches, name=f"{name}-launch", daemon=True),
            threading.Thread(target=self._collect_batches, name=f"{name}-collect", daemon=True),
        ]

    def open(self) -> None:
        for thread in self._threads:
            thread.start()

    def call(self, work: Callable[[], None]) -> None:
        self._to_launch.put(work)

    def submit(self, batch: Batch, *, lane_is_idle: bool) -> None:
        """Submits a batch. It is launched at once even if the lane is busy; it then waits in the device's queue."""
        self._to_launch.put(batch)

    def close(self) -> None:
        self._to_launch.put(None)

    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def _launch_batches(self) -> None:
        while (job := self._to_launch.get()) is not None:
            if callable(job):
                job()
            elif isinstance(job, Batch):
                self._launch(job)
            else:
                self._take_apart(*job)
        self._to_collect.put(None)

    def _launch(self, batch: Batch) -> None:
        done = Forwarded(batch)
        began = self._clock.now_ns()
        try:
            launched = self.model.launch(stage(self.model, batch))
        except BaseException as error:
            self._take_apart(done, error)
            return
        done.prepare_ns = self._clock.now_ns() - began
        self._to_collect.put((done, launched))

    def _collect_batches(self) -> None:
        while (job := self._to_collect.get()) is not None:
            done, launched = job
            try:
                outputs, done.copy_ns, done.compute_ns, done.copy_back_ns = self.model.collect(launched)
                check_batch(self.model, outputs, done.batch.padded_rows)
            except DeviceLost as error:
                self._take_apart(done, error)
            except BaseException as error:
                # Bisected in the launching thread, where the model's code runs, after the batches already launched.
                self._to_launch.put((done, error))
            else:
                done.pieces.append((outputs, range(len(done.batch.requests))))
                self._report(done)

    def _take_apart(self, done: Forwarded, error: BaseException) -> None:
        halve(self.model, self._clock, done, range(len(done.batch.requests)), error)
        self._report(done)

    def _report(self, done: Forwarded) -> None:
        done.done_ns = self._clock.now_ns()
        self._on_done(done)
