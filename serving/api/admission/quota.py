"""The interface of quotas, which bound what a tenant may ask, and the answer to a request beyond one.

Whoever reads a request takes its place in the quota as early as the tenant is known: over HTTP at its head, so that
a refused request costs no body. From the moment it is submitted, the observer of the backend gives the place back.
Until then, whoever took it does, however the request ends.
"""

from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from serving.api.faults import Fault, retry_after


class Quota(Protocol):
    """The quotas of all tenants in this process."""

    def take(self, tenant: str) -> None:
        """Counts a request. Raises CallFailed (429) if the tenant may not send it now."""
        ...

    def give_back(self, tenant: str) -> None:
        """Notes that a counted request has ended, or was not submitted after all."""
        ...


P = ParamSpec("P")
T = TypeVar("T")


def counted(quota: Quota | None, tenant: str, submit: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls `submit` after taking a place in the quota, and gives that back if it raises. Raises CallFailed (429)."""
    if quota is None:
        return submit(*arguments, **named)
    quota.take(tenant)
    try:
        return submit(*arguments, **named)
    except BaseException:
        quota.give_back(tenant)
        raise


def too_many(text: str, *, limit: int, remaining: int, window_s: int, retry_after_ns: int) -> Fault:
    """Returns the fault of a request beyond a quota.

    The headers RateLimit and RateLimit-Policy are those of the IETF's draft-ietf-httpapi-ratelimit-headers.
    window_s: the time for which the limit holds; 0 for one on requests in flight.
    """
    headers = [retry_after(retry_after_ns)]
    if window_s:
        name = b"day" if window_s > 60 else b"minute"
        headers.append((b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, limit, window_s)))
        headers.append((b"ratelimit", b'"%b";r=%d;t=%d' % (name, remaining, -(-retry_after_ns // 1_000_000_000))))
    return Fault(429, text, tuple(headers), retry_after_ns)
