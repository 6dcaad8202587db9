"""The interface by which the engine notifies metrics and logs of events. The engine itself knows no metric and no log.

Completed requests, the common case, are reported per batch, because work per request would add to each request's cost.
"""

from collections.abc import Sequence
from typing import Protocol

from serving.core.batch import Batch
from serving.core.outcome import Outcome, Timings
from serving.core.request import Request


class Observer(Protocol):
    """An observer of one engine. All methods are called on the event loop."""

    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        """Called with the completed requests of one batch.

        waits_ns: how long each was queued, in no particular order. The observer may sort this list.
        """

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        """Called when a request of this tenant has ended with an outcome other than Completed."""

    def requests_kept_out(self, count: int) -> None:
        """Called when HAProxy has refused requests in place of this replica. Their tenants are unknown."""

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        """Called when a request of a generating model has completed, with its number of answers.

        The times count from the request's arrival: until its generation began (queue_ns), until its first answer
        (first_ns, 0 without answers) and until its end (total_ns).
        """

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        """Called when a batch is done.

        occupied_ns: how long it occupied its lane. copied_in_ns, copied_out_ns: time of the copies to the device and
            back by the device's clock; 0 if it has none.
        """

    def lane_lost(self, lane_index: int, why: str) -> None: ...

    def batch_limit_halved(self, largest_rows: int) -> None: ...


class NullObserver:
    """An observer that does nothing."""

    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        pass

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        pass

    def requests_kept_out(self, count: int) -> None:
        pass

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        pass

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        pass

    def lane_lost(self, lane_index: int, why: str) -> None:
        pass

    def batch_limit_halved(self, largest_rows: int) -> None:
        pass
