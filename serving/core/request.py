"""A request as the queue sees it, and its rank. The payload is opaque here; only the model reads it."""

from collections.abc import Hashable
from dataclasses import dataclass

# A request without a deadline gets one this far after its arrival, so that deadline order is then order of arrival.
NO_DEADLINE_NS = 10**18
RETURN_PART = 4  # the answer's way back to its client may take a quarter of a deadline at most
DEFAULT_PRIORITY = 2
LOWEST_PRIORITY = 10  # larger numbers mean the same, because a request of unbounded priority could starve


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A unit of client work. It is never changed after admission.

    Not `frozen` because that costs a microsecond per request on the hot path.

    rows: leading dimension of its tensors; the number of batch rows that it needs.
    length: size of its padded dimension (for example tokens), 1 if nothing is padded.
    group: only requests of equal group can share a batch.
    rank_ns: its position among the requests of its tenant, see `rank`.
    deadline_ns: instant after which the answer is late.
    expires_ns: instant after which the client no longer waits; never before the deadline.
    """

    id: int
    tenant: str
    rows: int
    length: int
    group: Hashable
    arrived_ns: int
    deadline_ns: int
    expires_ns: int
    rank_ns: int
    payload: object


def rank(arrived_ns: int, deadline_ns: int, priority: int, step_ns: int) -> int:
    """Returns the rank of a request: smaller goes first.

    The order is earliest deadline first, with two changes: a deadline further away than `step_ns` counts as `step_ns`
    away, and each level of priority is worth `step_ns` of waiting.

    The rank is constant while a request waits, and bounded by the arrival: a request that arrives later by more than
    `step_ns` times (1 + the levels of priority between them) is never ahead, whatever its deadline. So no request
    starves.

    priority: 1 is the most urgent, larger numbers are less urgent, 0 means the default (Triton's order).
    """
    furthest_ns = arrived_ns + step_ns
    rank_ns = deadline_ns if deadline_ns < furthest_ns else furthest_ns
    return rank_ns + (min(priority, LOWEST_PRIORITY) - DEFAULT_PRIORITY) * step_ns if priority else rank_ns
