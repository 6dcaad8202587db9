"""The interface of a batching policy to the executor. One instance is used for one run."""

from dataclasses import dataclass
from typing import Protocol

from serving.core.request import Request


@dataclass(slots=True)
class Work:
    """One batch for the device. token: the policy's own identifier of the batch."""

    requests: list[Request]
    padded_rows: int
    length: int = 1
    token: object = None


class Policy(Protocol):
    prefetches: bool  # the executor calls `next` while the lane is still busy
    wake_ns: int | None  # the executor calls `next` again at this instant
    dropped: list[Request]  # dropped since the executor last emptied it

    def arrive(self, request: Request, now_ns: int) -> bool:
        """Offers a request. Returns False if it is refused."""
        ...

    def next(self, lane: int, now_ns: int) -> Work | None:
        """Returns the next batch for this lane, or None if there is none now."""
        ...

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None: ...

    def cancel(self, request: Request, now_ns: int) -> bool:
        """Cancels a request whose client has disconnected. Returns whether it was still waiting."""
        ...
