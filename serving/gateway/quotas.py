"""The quotas of all tenants in one replica: who may send a request now, and the loop that renews their leases.

`admit` is called for every request and never waits. `run` is the only part that speaks to the shared store; it has an
owner, who starts it in a TaskGroup and ends it by cancelling. Without a store there is nothing to run.
"""

import asyncio
import logging
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from serving.core.clock import Calendar, Clock, SystemClock
from serving.store.base import PRESENT_NS, QuotaStore, StoreUnavailable
from serving.store.guard import Guard
from serving.traffic.alone import CONCURRENT, DAY, Reason, Sharing
from serving.traffic.lease import SOONEST_NS, TURN_NS, Lease
from serving.traffic.quota import DAY_NS
from serving.traffic.tenants import Tenant

HEARTBEAT_NS = PRESENT_NS // 4  # at rest, between two calls by which the others know that this replica is present
SOON_NS = 1_000_000_000  # when to come again for a place in flight, which nobody can know
MOST_TENANTS = 4096  # remembered beside those that are declared
UNBOUNDED = 1 << 62
_log = logging.getLogger(__name__)


class Admitted(NamedTuple):
    """The request may pass; `release` must follow."""


class Refused(NamedTuple):
    """The request may not pass. retry_after_ns: when it may. limit: the bound of this reason; remaining: of it, now."""

    retry_after_ns: int
    limit: int
    remaining: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class TenantCounts:
    """The counts of a tenant's requests in this replica, and how many more it may send: at once, and today. Both of the
    day are None without a daily total."""

    tenant: str
    limit: int
    admitted: int
    refused: Mapping[Reason, int]
    in_flight: int
    remaining: int
    day_limit: int | None
    day_left: int | None


ADMITTED = Admitted()


class Account:
    """All that a replica keeps of one tenant."""

    __slots__ = ("in_flight", "lease", "most", "refused", "tenant")

    def __init__(self, tenant: Tenant, sharing: Sharing, now_ns: int) -> None:
        self.tenant = tenant
        self.lease = Lease(tenant, sharing, now_ns)
        self.in_flight = 0
        self.most = tenant.concurrent or UNBOUNDED
        self.refused = dict.fromkeys(Reason, 0)


class Quotas:
    """The quotas of one replica.

    tenants: those that are declared, by name; others get the limits of `default`. replica: its name among those that
    share `store`. replicas: how many there are, until the store has told: the largest number that may run. guard: for
    the calls of the store. Without a store this replica keeps the limits alone, as one of `replicas`.
    """

    def __init__(
        self,
        tenants: Mapping[str, Tenant],
        *,
        default: Tenant | None = None,
        store: QuotaStore | None = None,
        guard: Guard | None = None,
        replica: str = "",
        replicas: int = 1,
        clock: Clock | None = None,
        calendar: Clock | None = None,
    ) -> None:
        assert (store is None) == (guard is None), "a store comes with its guard"
        self._clock = clock or SystemClock()
        now_ns = self._clock.now_ns()
        day_ends_ns = now_ns + DAY_NS - (calendar or Calendar()).now_ns() % DAY_NS
        self._default = default or Tenant(name="*")
        self._store = store
        self._guard = guard
        self._replica = replica
        self._sharing = Sharing(
            replicas=replicas, alone_since_ns=None if store else 0, day_ends_ns=day_ends_ns, wake=self._wake
        )
        self._accounts = {name: Account(tenant, self._sharing, now_ns) for name, tenant in tenants.items()}
        self._declared = frozenset(tenants)
        self._forgotten_admitted = 0  # by accounts that were removed
        self._forgotten_refused = dict.fromkeys(Reason, 0)
        self._active: dict[str, Account] = {}
        self._woken = asyncio.Event()
        self._spoke_ns: int | None = None  # when the store answered last
        self._replicas_ns = now_ns  # when there were at least so many replicas
        self._said: set[str] = set()  # the kinds of failures that are logged already

    @property
    def degraded(self) -> bool:
        """True while there is a store that does not answer, so that this replica keeps to its own share."""
        return self._store is not None and self._sharing.alone_since_ns is not None

    @property
    def is_shared(self) -> bool:
        """True while the limits are shared through a store that answers, False while this replica has parts of them."""
        return self._sharing.alone_since_ns is None

    @property
    def replicas(self) -> int:
        """The number of replicas that are known to share the limits."""
        return self._sharing.replicas

    def admit(self, tenant: str, now_ns: int) -> Admitted | Refused:
        """Decides whether a request may pass, and counts it. After Admitted, `release` must be called exactly once."""
        try:
            account = self._accounts[tenant]
        except KeyError:
            account = self._open(tenant, now_ns)
        lease = account.lease
        if account.in_flight >= account.most:
            return self._refuse(account, CONCURRENT, SOON_NS)
        if lease.tokens > 0 and now_ns < lease.until_ns:  # as `Lease.take` does, without a call
            lease.tokens -= 1
            account.in_flight += 1
            return ADMITTED
        if lease.take(now_ns):
            account.in_flight += 1
            return ADMITTED
        reason, retry_after_ns = lease.refusal(now_ns)
        return self._refuse(account, reason, retry_after_ns)

    def release(self, tenant: str) -> None:
        """Notes that an admitted request has ended, however it did. Requests that were not admitted may end too."""
        account = self._accounts.get(tenant)
        if account is not None and account.in_flight:
            account.in_flight -= 1

    def tenants(self) -> Sequence[str]:
        """Returns the names of all tenants that have sent a request or are declared, the declared ones first."""
        return list(self._accounts)

    def snapshot(self, now_ns: int, tenants: Container[str] | None = None) -> Sequence[TenantCounts]:
        """Returns the counts of these tenants; None: of every tenant that has sent a request or is declared."""
        return [
            TenantCounts(
                tenant=name,
                limit=account.tenant.requests_per_minute,
                admitted=account.lease.admitted,
                refused=dict(account.refused),
                in_flight=account.in_flight,
                remaining=account.lease.remaining(now_ns),
                day_limit=account.tenant.per_day,
                day_left=account.lease.day_left(now_ns),
            )
            for name, account in self._accounts.items()
            if tenants is None or name in tenants
        ]

    def others(self, tenants: Container[str]) -> tuple[int, dict[Reason, int]]:
        """Returns the sums of all tenants but these: requests admitted, and refused by reason. They never fall."""
        accounts = [account for name, account in self._accounts.items() if name not in tenants]
        admitted = self._forgotten_admitted + sum(account.lease.admitted for account in accounts)
        refused = {
            reason: count + sum(account.refused[reason] for account in accounts)
            for reason, count in self._forgotten_refused.items()
        }
        return admitted, refused

    async def run(self) -> None:
        """Renews leases until it is cancelled. Then it gives back what is left and closes the store."""
        if self._store is None:
            return
        try:
            while True:
                try:
                    await self.turn(self._clock.now_ns())
                except Exception as error:  # a mistake of ours must not refuse everybody: keep to the own share
                    self._fall_back(StoreUnavailable(type(error).__name__, str(error)))
                await self._pause()
        finally:
            await self._leave(self._store)

    async def turn(self, now_ns: int) -> None:
        """Renews the leases of all tenants that need it, in one call of the store. Failures are logged, not raised."""
        assert self._store is not None, "without a store there is nothing to renew"
        assert self._guard is not None
        store = self._store
        asking: list[Account] = []
        asks = []
        for name, account in list(self._active.items()):
            ask = account.lease.ask(now_ns)
            if ask is not None:
                asking.append(account)
                asks.append(ask)
            if account.lease.is_idle:
                del self._active[name]
        is_recent = self._spoke_ns is not None and now_ns - self._spoke_ns < HEARTBEAT_NS
        if not asks and is_recent and not self.degraded:
            return
        try:
            renewal = await self._guard.call(lambda: store.renew(self._replica, asks))
            if len(renewal.grants) != len(asks):
                raise StoreUnavailable("garbage", f"{len(renewal.grants)} grants for {len(asks)} asks")
        except StoreUnavailable as failure:
            for account in asking:
                account.lease.lost()
            self._fall_back(failure)
        else:
            self._answered(renewal.replicas, now_ns)
            for account, grant in zip(asking, renewal.grants, strict=True):
                account.lease.granted(grant)

    def _refuse(self, account: Account, reason: Reason, retry_after_ns: int) -> Refused:
        account.refused[reason] += 1
        tenant = account.tenant
        if reason is CONCURRENT:
            return Refused(retry_after_ns, account.most, 0, reason)
        limit = tenant.per_day if reason is DAY and tenant.per_day else tenant.requests_per_minute
        return Refused(retry_after_ns, limit, 0, reason)

    def _open(self, tenant: str, now_ns: int) -> Account:
        """Begins an account for a tenant that is not declared, in place of one without a trace if there are many."""
        if len(self._accounts) >= MOST_TENANTS + len(self._declared):
            others = (name for name, account in self._accounts.items() if self._may_forget(name, account, now_ns))
            if (forgotten := next(others, None)) is not None:
                gone = self._accounts.pop(forgotten)
                self._forgotten_admitted += gone.lease.admitted
                for reason, count in gone.refused.items():
                    self._forgotten_refused[reason] += count
        account = self._accounts[tenant] = Account(replace(self._default, name=tenant), self._sharing, now_ns)
        return account

    def _may_forget(self, name: str, account: Account, now_ns: int) -> bool:
        """Returns whether an account is like a new one."""
        if name in self._declared or name in self._active or account.in_flight:
            return False
        return account.lease.remaining(now_ns) >= account.tenant.at_once

    def _wake(self, tenant: str) -> None:
        if self._store is not None:
            self._active[tenant] = self._accounts[tenant]
            self._woken.set()

    async def _pause(self) -> None:
        """Waits until the next turn: at least a moment, longer if nobody has something to ask soon."""
        await asyncio.sleep(SOONEST_NS / 1e9)
        longest_ns = TURN_NS - SOONEST_NS if self._active or self.degraded else HEARTBEAT_NS
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_ns / 1e9):
                await self._woken.wait()
        self._woken.clear()

    def _answered(self, replicas: int, now_ns: int) -> None:
        if self._said:
            _log.info("quotas: the shared store answers again; limits are exact again")
            self._said.clear()
        self._sharing.alone_since_ns = None
        self._spoke_ns = now_ns
        # A store that comes back empty does not know yet who is present.
        if replicas >= self._sharing.replicas or now_ns - self._replicas_ns >= PRESENT_NS:
            self._sharing.replicas, self._replicas_ns = max(1, replicas), now_ns

    def _fall_back(self, failure: StoreUnavailable) -> None:
        if self._sharing.alone_since_ns is None:
            self._sharing.alone_since_ns = max(1, self._clock.now_ns())
        if failure.kind not in self._said and failure.kind != "open":
            _log.warning(
                "quotas: the shared store fails (%s: %s); each of %d replicas keeps to its share until it answers",
                failure.kind, failure, self._sharing.replicas,
            )  # fmt: skip
        self._said.add(failure.kind)

    async def _leave(self, store: QuotaStore) -> None:
        assert self._guard is not None
        asks = [ask for account in self._active.values() if (ask := account.lease.end()) is not None]
        try:
            await self._guard.call(lambda: store.leave(self._replica, asks))
        except StoreUnavailable as failure:
            _log.info("quotas: the shared store did not take back what was left: %s", failure)
        await store.close()
