"""What the executor asks of a batching policy. One instance lives through one run."""

from dataclasses import dataclass
from typing import Protocol

from serving.core.request import Request


@dataclass(slots=True)
class Work:
    """One batch as the device sees it. token: the policy's own name for it."""

    requests: list[Request]
    padded_rows: int
    length: int = 1
    token: object = None


class Policy(Protocol):
    prefetches: bool  # wants to be asked for work while its lane is still busy
    wake_ns: int | None  # wants to be asked again at this instant
    dropped: list[Request]  # given up since the executor last looked; the executor empties it

    def arrive(self, request: Request, now_ns: int) -> bool:
        """False: refused at the door."""
        ...

    def next(self, lane: int, now_ns: int) -> Work | None:
        """Work for this lane, if there is any to be had now."""
        ...

    def done(self, work: Work, now_ns: int, *, failed: bool) -> None: ...

    def cancel(self, request: Request, now_ns: int) -> bool:
        """The client hung up. True if the request was still waiting and now is not."""
        ...
