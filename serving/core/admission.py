"""May a request enter? Only a miss that no schedule could avoid is refused here; the rest is decided at the cut."""

from collections.abc import Callable

from serving.core.outcome import Reason, Rejected
from serving.core.request import Request


def refusal(
    request: Request, *, largest_rows: int, has_place: bool, earliest_done_ns: int, backlog_ns: Callable[[], int]
) -> Rejected | None:
    """Why the request may not enter, or None.

    largest_rows: the most rows one batch may have.
    earliest_done_ns: when it would be done if it were served next, with the learned margin.
    backlog_ns: time to work off what waits already, the hint when to come again; asked only when it is needed.
    """
    if request.rows > largest_rows:
        return Rejected(Reason.TOO_LARGE, retry_after_ns=0)
    if not has_place:
        return Rejected(Reason.QUEUE_FULL, retry_after_ns=backlog_ns())
    if earliest_done_ns > request.deadline_ns:
        missed_by_ns = earliest_done_ns - request.deadline_ns
        return Rejected(Reason.DEADLINE_HOPELESS, retry_after_ns=max(backlog_ns(), missed_by_ns))
    return None
