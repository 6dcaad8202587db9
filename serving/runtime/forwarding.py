"""Runs a batch. If it fails, bisects it so that only the faulty requests fail."""

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
    """The result of a batch: outputs by forward pass, errors by request, and times.

    pieces: (outputs, the requests that they belong to) per successful forward pass, more than one if the batch was
        bisected; requests are given as indices into `batch.requests`.
    copy_ns: time to copy the batch to the device while the host did something else; within `compute_ns` or before it.
    copy_back_ns: time to copy the outputs back from the device, measured likewise.
    lost: the device is lost.
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
    """Collates the whole batch, padded to its bucket."""
    return model.collate(_parts(batch, range(len(batch.requests))), Bucket(batch.padded_rows, batch.length))


def forward(
    model: Model, clock: Clock, done: Forwarded, members: range, padded_rows: int, staged: object = None
) -> None:
    """Computes these members of the batch in the calling thread; if that fails, bisects them.

    Adds outputs, errors and times to `done`. staged: the members as `collate` returned them, if that is done already.
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
    except BaseException as error:  # SystemExit too: it would end the lane's thread unnoticed
        done.compute_ns += clock.now_ns() - began
        halve(model, clock, done, members, error)


def halve(model: Model, clock: Clock, done: Forwarded, members: range, error: BaseException) -> None:
    """Handles an error from computing these members: computes each half again, so that only faulty requests fail.

    A single member fails with the error; if the device is lost, all members fail.
    """
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
