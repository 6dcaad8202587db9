"""Counts the requests of a replica with quotas: gives their places back when they end, and tells how quotas stand."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from serving.api.admission.quota import Quota
from serving.core.clock import SystemClock
from serving.core.outcome import Outcome, Timings
from serving.core.request import Request
from serving.telemetry.quotas import QuotaCounts, QuotaReading
from serving.telemetry.recorder import Recorder
from serving.telemetry.tenants import OTHER, TenantNames

if TYPE_CHECKING:
    from serving.gateway.tenant_quota import TenantQuota


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

    def request_cached(self, tenant: str) -> None:
        super().request_cached(tenant)
        self._quota.give_back(tenant)

    def generated(self, tenant: str, queue_ns: int, first_ns: int, total_ns: int, answers: int) -> None:
        super().generated(tenant, queue_ns, first_ns, total_ns, answers)
        self._quota.give_back(tenant)


def quota_reader(
    quota: "TenantQuota | None", declared: Iterable[str], now_ns: Callable[[], int] = SystemClock.now_ns
) -> Callable[[], QuotaReading] | None:
    """Returns a function that reads the quotas of this replica for a snapshot; None without quotas.

    declared: the tenants in the settings, which always have a name.
    """
    if quota is None:
        return None
    quotas = quota.quotas
    names = TenantNames(declared)

    def read() -> QuotaReading:
        named = {tenant: name for tenant in quotas.tenants() if (name := names.of(tenant)) != OTHER}
        tenants = {
            named[counts.tenant]: QuotaCounts(
                admitted=counts.admitted,
                refused={str(reason): count for reason, count in counts.refused.items()},
                limit=counts.limit,
                remaining=counts.remaining,
                day_limit=counts.day_limit,
                day_left=counts.day_left,
            )
            for counts in quotas.snapshot(now_ns(), named)
        }
        admitted, refused = quotas.others(named)
        if admitted or any(refused.values()):
            told = {str(reason): count for reason, count in refused.items()}
            tenants[OTHER] = QuotaCounts(admitted=admitted, refused=told)
        return QuotaReading(tenants=tenants, shared=quotas.is_shared, degraded=quotas.degraded)

    return read
