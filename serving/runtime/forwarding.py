"""Runs a batch. If it fails, bisects it so that only the faulty request fails."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.base import Bucket, DeviceLost, Model, OutOfDeviceMemory, Prepared
from serving.core.batch import Batch
from serving.core.clock import Clock
from serving.core.errors import LaneLost, OutOfMemory, ServingError
from serving.runtime.answers import as_model_error
from serving.runtime.checking import check_batch


@dataclass(slots=True)
class Forwarded:
    """The result of a batch: its outputs and errors.

    pieces: (outputs, indices of `batch.requests`) of each successful forward pass; several if the batch was bisected.
    errors: by index of `batch.requests`.
    copy_ns: time of staging the batch to the device while the host did other work, within `compute_ns` or before it.
    copy_back_ns: the same for copying its outputs back to the host.
    """

    batch: Batch
    pieces: list[tuple[dict[str, Any], range]] = field(default_factory=list)
    errors: dict[int, ServingError] = field(default_factory=dict)
    prepare_ns: int = 0
    copy_ns: int = 0
    compute_ns: int = 0
    copy_back_ns: int = 0
    done_ns: int = 0
    ran_out_of_memory: bool = False
    lost: bool = False

    def is_clean(self) -> bool:
        return len(self.pieces) == 1 and not self.errors


def stage(model: Model, batch: Batch) -> object:
    """Returns the whole batch, collated."""
    return model.collate(_parts(batch, range(len(batch.requests))), Bucket(batch.padded_rows, batch.length))


def forward(
    model: Model, clock: Clock, done: Forwarded, members: range, padded_rows: int, staged: object = None
) -> None:
    """Computes these requests of the batch and waits for the result. If that fails, bisects them.

    members: indices of `done.batch.requests`. staged: these requests, if they are collated already.
    """
    began = clock.now_ns()
    try:
        if staged is None:
            staged = model.collate(_parts(done.batch, members), Bucket(padded_rows, done.batch.length))
            done.prepare_ns += clock.now_ns() - began
            began = clock.now_ns()
        outputs = model.forward(staged)
        check_batch(model, outputs, padded_rows)
        done.pieces.append((outputs, members))
        done.compute_ns += clock.now_ns() - began
    # Also SystemExit: it would end the thread of the lane, and its requests would never be answered.
    except BaseException as error:
        done.compute_ns += clock.now_ns() - began
        halve(model, clock, done, members, error)


def halve(model: Model, clock: Clock, done: Forwarded, members: range, error: BaseException) -> None:
    """Retries each half of the failed requests. Sets the error of a single one, or of all if the device is lost."""
    if isinstance(error, DeviceLost):
        done.lost = True
        done.errors.update(dict.fromkeys(members, LaneLost(f"the device is lost: {error}")))
        return
    if isinstance(error, OutOfDeviceMemory):
        done.ran_out_of_memory = True
        failure: ServingError = OutOfMemory(f"the device ran out of memory: {error}")
    else:
        failure = as_model_error(error)
    if len(members) == 1:
        done.errors[members[0]] = failure
        return
    middle = len(members) // 2
    for half in (members[:middle], members[middle:]):
        if done.lost:
            done.errors.update(dict.fromkeys(half, LaneLost("the device was lost while the batch was computed")))
        else:
            forward(model, clock, done, half, sum(done.batch.requests[index].rows for index in half))


def _parts(batch: Batch, members: range) -> Sequence[Prepared]:
    return [batch.requests[index].payload for index in members]  # type: ignore[misc]
