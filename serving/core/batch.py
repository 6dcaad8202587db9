"""A batch: the requests of one forward pass. Once the batch is cut, its requests do not change."""

from dataclasses import dataclass, field
from enum import Enum

from serving.core.request import Request


class CutReason(Enum):
    """The reason why a batch was cut with the rows that it has."""

    IDLE = "the lane was idle: waiting would only have added latency"
    FULL = "the batch had all the rows that pay off"
    DEADLINE = "one more row would have made a member late"
    LANE_READY = "the lane was about to be free and this was all there was"


@dataclass(slots=True, eq=False, kw_only=True)
class Batch:
    """The requests of one forward pass. The device computes `padded_rows` x `length`; `rows` of them are requested.

    start_ns: when the lane is expected to begin computing it. finish_ns: when it is planned to be done.
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
    charged_ns: int  # device time charged to its tenants at the cut; corrected when the batch is done
    reason: CutReason


@dataclass(slots=True)
class Cut:
    """The result of `Batcher.cut`.

    batch: the batch, already removed from the queue; None if none is to be cut now.
    expired: requests that can no longer meet their deadlines, already removed from the queue. The caller answers them.
    ask_again_ns: without a batch, the instant from which another call may return one; None if only an arrival or a
        finished batch can change the result.
    """

    batch: Batch | None = None
    expired: list[Request] = field(default_factory=list)
    ask_again_ns: int | None = None
