"""The five ways a request ends. Every request ends exactly once, in one of them."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from serving.core.errors import ServingError


class Reason(Enum):
    """Why a request was refused at the door."""

    QUEUE_FULL = "the queue is full"
    DEADLINE_HOPELESS = "the deadline cannot be met even if the request is served next"
    TOO_LARGE = "the request has more rows than the largest batch"
    TOO_MANY_SEQUENCES = "as many sequences are open as may be"
    DRAINING = "the server is shutting down"


class Timings(NamedTuple):
    """Where a batch, and so each request in it, spent its time, in nanoseconds; shared by all its requests."""

    prepare_ns: int
    compute_ns: int
    finish_ns: int
    batch_rows: int


@dataclass(slots=True)
class Completed:
    """The only one made on the hot path, and therefore not `frozen`, which costs half a microsecond.

    queue_ns: how long the request waited until its batch was cut.
    """

    value: object
    queue_ns: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    error: ServingError


@dataclass(frozen=True, slots=True)
class Expired:
    """Its deadline passed, or became impossible, while it waited: it was never computed."""

    waited_ns: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class Rejected:
    """limit: how much would have been taken, where a number says it. needs_ns: how long after its arrival the request
    could be answered at the earliest, where that was too late."""

    reason: Reason
    retry_after_ns: int
    limit: int | None = None
    needs_ns: int | None = None


Outcome = Completed | Failed | Expired | Cancelled | Rejected
