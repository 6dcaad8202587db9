"""One unit of client work, as the queue sees it. What is in the payload is the model's business."""

from collections.abc import Hashable
from dataclasses import dataclass

# A request without any deadline gets one this far away, so that deadline order is then order of arrival.
NO_DEADLINE_NS = 10**18
WAY_BACK_PART = 4  # the answer's way back to its client may take a quarter of a deadline at most
DEFAULT_PRIORITY = 2
LOWEST_PRIORITY = 10  # larger numbers mean the same: else one request could be told to wait for ever


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """Written once at admission and never changed. Not `frozen`: that costs a microsecond per request on the hot path.

    rows: leading dimension of its tensors; what it takes of a batch.
    length: size of its padded dimension (tokens, say), 1 where nothing is padded.
    group: only requests of equal group can share a batch.
    rank_ns: its place among the requests of its tenant, see `rank`.
    deadline_ns: instant after which the answer is late.
    expires_ns: instant after which the client is gone; never before the deadline.
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
    """Earliest deadline first, where a deadline further away than `step_ns` counts as that far, and each level of
    priority is worth `step_ns` of waiting.

    The rank never changes while a request waits, and it is bounded by the arrival: a request that arrives more than
    `step_ns` times (1 + the levels between them) later is never ahead, whatever its deadline. So nobody is starved.

    priority: 1 is the most urgent, larger numbers less so, 0 means the default (the order Triton uses).
    """
    furthest_ns = arrived_ns + step_ns
    rank_ns = deadline_ns if deadline_ns < furthest_ns else furthest_ns
    return rank_ns + (min(priority, LOWEST_PRIORITY) - DEFAULT_PRIORITY) * step_ns if priority else rank_ns
