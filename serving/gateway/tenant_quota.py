"""Refuses requests beyond a tenant's quota, with what to do in the answer."""

from collections.abc import Callable

from serving.api.admission.quota import too_many
from serving.api.faults import CallFailed
from serving.core.clock import SystemClock
from serving.gateway.quotas import Quotas, Refused
from serving.traffic.alone import Reason

_WINDOW_S = {Reason.RATE: 60, Reason.DAY: 86400, Reason.CONCURRENT: 0}
_TEXTS = {
    Reason.RATE: "the quota of {limit} requests a minute is used up; retry later, or spread requests out",
    Reason.DAY: "the quota of {limit} requests a day is used up; it begins anew at midnight UTC",
    Reason.CONCURRENT: "{limit} requests are in flight already, which is this tenant's limit; await answers first",
}


class TenantQuota:
    """Implements `api.admission.quota.Quota`. quotas: those of this replica."""

    def __init__(self, quotas: Quotas, *, now_ns: Callable[[], int] = SystemClock.now_ns) -> None:
        self.quotas = quotas
        self._now_ns = now_ns

    def take(self, tenant: str) -> None:
        verdict = self.quotas.admit(tenant, self._now_ns())
        if type(verdict) is Refused:
            text = _TEXTS[verdict.reason].format(limit=verdict.limit)
            raise CallFailed(
                too_many(
                    text,
                    limit=verdict.limit,
                    remaining=verdict.remaining,
                    window_s=_WINDOW_S[verdict.reason],
                    retry_after_ns=verdict.retry_after_ns,
                )
            )

    def give_back(self, tenant: str) -> None:
        self.quotas.release(tenant)
