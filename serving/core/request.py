"""One unit of client work, as the queue sees it. What is in the payload is the model's business."""

from collections.abc import Hashable
from dataclasses import dataclass

# A request without any deadline gets one this far away, so that deadline order is then order of arrival.
NO_DEADLINE_NS = 10**18


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


def rank(deadline_ns: int, priority: int, step_ns: int, default_priority: int = 2) -> int:
    """Earliest deadline first, where each level of priority is worth `step_ns` of waiting.

    The rank never changes while a request waits, and newcomers have ever later deadlines: so whatever waits
    ages, and no level starves another for longer than the levels between them times `step_ns`.

    priority: 1 is the most urgent, larger numbers less so, 0 means the default (the order Triton uses).
    """
    level = priority or default_priority
    return deadline_ns + (level - default_priority) * step_ns
