"""Counts the requests of a replica, and gives their places in a tenant's quota back when they end."""

from collections.abc import Iterable, Sequence

from serving.api.admission.quota import Quota
from serving.core.outcome import Outcome, Timings
from serving.core.request import Request
from serving.telemetry.recorder import Recorder


class QuotaRecorder(Recorder):
    """A `Recorder` for a server with quotas."""

    def __init__(self, tenants: Iterable[str], quota: Quota) -> None:
        super().__init__(tenants)
        self._quota = quota

    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        super().requests_completed(requests, waits_ns, timings)
        for request in requests:
            self._quota.give_back(request.tenant)

    def request_ended(self, tenant: str, outcome: Outcome) -> None:
        super().request_ended(tenant, outcome)
        self._quota.give_back(tenant)

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        super().generated(tenant, queue_ns, first_ns, total_ns, answers)
        self._quota.give_back(tenant)
