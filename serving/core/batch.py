"""A batch: requests bound for one forward pass, fixed for ever once cut."""

from dataclasses import dataclass, field
from enum import Enum

from serving.core.request import Request


class CutReason(Enum):
    """Why a batch left with what it had."""

    IDLE = "the lane was idle: waiting would only have added latency"
    FULL = "the batch had all the rows that pay off"
    DEADLINE = "one more row would have made a member late"
    LANE_READY = "the lane was about to be free and this was all there was"


@dataclass(slots=True, eq=False, kw_only=True)
class Batch:
    """`padded_rows` x `length` is what the device computes, `rows` of it is asked for.

    start_ns: when the lane was expected to begin; finish_ns: by when it is planned to be done.
    """

    id: int
    lane_index: int
    requests: list[Request]
    rows: int
    padded_rows: int
    length: int
    cut_ns: int
    start_ns: int
    finish_ns: int
    charged_ns: int  # what its tenants were charged for it; the settlement corrects it
    reason: CutReason


@dataclass(slots=True)
class Cut:
    """The answer to "may this lane have a batch now?".

    batch: the batch, already out of the queue; None if there is none to be had now.
    expired: requests that can no longer make it; they have left the queue and want an answer.
    ask_again_ns: with no batch, the instant from which asking again makes sense; None: only an arrival or a
        finished batch changes the answer.
    """

    batch: Batch | None = None
    expired: list[Request] = field(default_factory=list)
    ask_again_ns: int | None = None
