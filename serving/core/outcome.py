"""The five outcomes of a request. Each request ends exactly once, with one of them."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from serving.core.errors import ServingError


class Reason(Enum):
    """The reason why a request was refused at admission. The values are part of messages to clients.

    OVERLOAD: HAProxy refused it in place of the replica (`core/intake.py`)."""

    QUEUE_FULL = "the queue is full"
    DEADLINE_HOPELESS = "the deadline cannot be met even if the request is served next"
    OVERLOAD = "the replicas are answering as many requests as they can in time"
    TOO_LARGE = "the request has more rows than the largest batch"
    TOO_MANY_SEQUENCES = "as many sequences are open as may be"
    DRAINING = "the server is shutting down"


class Timings(NamedTuple):
    """The durations of a batch's phases in nanoseconds; shared by all its requests."""

    prepare_ns: int
    compute_ns: int
    finish_ns: int
    batch_rows: int


@dataclass(slots=True)
class Completed:
    """The request has its answer.

    Not `frozen` because it is the only outcome made on the hot path, and `frozen` costs half a microsecond.

    queue_ns: how long the request waited until its batch was cut.
    cached: whether the answer is that of an equal request; None for a model without a cache.
    features: of which features no valid value was known, in ASCII; None unless the request asked for it.
    """

    value: object
    queue_ns: int
    timings: Timings
    cached: bool | None = None
    features: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed with this error."""

    error: ServingError


@dataclass(frozen=True, slots=True)
class Expired:
    """The request was never computed because its deadline passed, or became impossible to meet, while it waited."""

    waited_ns: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client withdrew the request."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The request was refused at admission.

    retry_after_ns: hint for the client when to try again.
    limit: the largest value that is accepted, if the reason is a limit with a number.
    needs_ns: the earliest time after its arrival at which the request could be answered, if that is too late.
    """

    reason: Reason
    retry_after_ns: int
    limit: int | None = None
    needs_ns: int | None = None


Outcome = Completed | Failed | Expired | Cancelled | Rejected
