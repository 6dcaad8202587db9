"""A tenant: on whose behalf requests are sent, how many it may send, and which models it may see."""

import re
from dataclasses import dataclass

NAME = re.compile(r"[!-~]{1,64}")  # visible ASCII, so that it fits into headers, labels and logs
BURST_DIVISOR = 100  # without a stated burst, a hundredth of the limit of a minute may come at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The declared facts of one tenant.

    name: "" for requests that name no tenant, where callers need no credential: they share one quota.
    requests_per_minute: the limit over all replicas. burst: how many requests may come at once; a minute may admit that
        many more than the limit; None: a hundredth of the limit. concurrent: the most requests in flight in one
        replica; None: no bound. per_day: the most requests from midnight to midnight UTC; None: no bound.
    weight: its share of device time when that is short. models: the models that it may see; None: all.
    """

    name: str
    requests_per_minute: int = 1000
    burst: int | None = None
    concurrent: int | None = None
    per_day: int | None = None
    weight: float = 1.0
    models: frozenset[str] | None = None

    def __post_init__(self) -> None:
        assert self.requests_per_minute > 0, self
        assert self.burst is None or self.burst > 0, self
        assert self.concurrent is None or self.concurrent > 0, self
        assert self.per_day is None or self.per_day > 0, self
        assert self.weight > 0, self

    @property
    def at_once(self) -> int:
        """The burst in force."""
        return self.burst if self.burst is not None else max(1, self.requests_per_minute // BURST_DIVISOR)

    def may_see(self, model: str) -> bool:
        return self.models is None or model in self.models
