"""What happened, told in values. Logic tells an observer; it never touches a metric or a log format.

The common case, an answered request, is told by the batch: whatever is done per request is paid for by every request.
"""

from collections.abc import Sequence
from typing import Protocol

from serving.core.batch import Batch
from serving.core.outcome import Outcome, Timings
from serving.core.request import Request


class Observer(Protocol):
    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        """Requests of one batch were answered; `waits_ns` is how long each was queued, in no order. May sort them."""

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        """One request of this tenant ended otherwise than Completed."""

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        """All these answers to one request of a model that generates are there. The times are from its arrival: to its
        seat, to the first answer (0 without any), to the end."""

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        """A batch came back from its lane, which it occupied for so long. It was copied to the device and back, by the
        device's clock, where it has one."""

    def lane_lost(self, lane_index: int, why: str) -> None: ...

    def batch_limit_halved(self, largest_rows: int) -> None: ...


class SilentObserver:
    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        pass

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        pass

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        pass

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        pass

    def lane_lost(self, lane_index: int, why: str) -> None:
        pass

    def batch_limit_halved(self, largest_rows: int) -> None:
        pass
