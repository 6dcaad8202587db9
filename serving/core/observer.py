"""What happened, told in values. Logic tells an observer; it never touches a metric or a log format."""

from typing import Protocol

from serving.core.batch import Batch
from serving.core.outcome import Outcome
from serving.core.request import Request


class Observer(Protocol):
    def request_ended(self, request: Request, outcome: Outcome) -> None: ...

    def batch_settled(self, batch: Batch, occupied_ns: int) -> None: ...

    def lane_lost(self, lane_index: int, why: str) -> None: ...

    def batch_limit_halved(self, largest_rows: int) -> None: ...


class SilentObserver:
    def request_ended(self, request: Request, outcome: Outcome) -> None:
        pass

    def batch_settled(self, batch: Batch, occupied_ns: int) -> None:
        pass

    def lane_lost(self, lane_index: int, why: str) -> None:
        pass

    def batch_limit_halved(self, largest_rows: int) -> None:
        pass
