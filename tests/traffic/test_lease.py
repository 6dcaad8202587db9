"""Tests a lease with numbers and under any order of events, and the shared limit against a bucket with debt."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from serving.traffic.alone import Reason, Sharing
from serving.traffic.lease import AHEAD_NS, LASTS_NS, PATIENCE_NS, TURN_NS, Lease
from serving.traffic.quota import DAY_NS, MINUTE_NS, Pace
from serving.traffic.sharing import Ask, Counter, Grant, settle
from serving.traffic.tenants import Tenant
from tests.traffic.test_quota import Bucket

ACME = Tenant(name="acme")  # 1,000 a minute, ten at once
PACE = Pace.per_minute(60, 10)  # one a second
MS = 1_000_000
NOON_NS = 20_000 * DAY_NS + DAY_NS // 2


def asked(**more: int) -> Ask:
    return Ask("acme", PACE, None, **more)


def takes(lease: Lease, count: int, now_ns: int) -> int:
    """Returns how many of so many requests pass."""
    return sum(lease.take(now_ns) for _ in range(count))


def test_an_idle_tenant_may_send_its_burst_to_any_replica() -> None:
    woken: list[str] = []
    lease = Lease(ACME, Sharing(replicas=4, wake=woken.append), 0)
    assert takes(lease, 12, 0) == 10
    assert set(woken) == {"acme"}
    assert lease.refusal(0) == (Reason.RATE, TURN_NS)


def test_what_was_admitted_on_credit_is_charged_at_the_next_turn() -> None:
    lease = Lease(ACME, Sharing(replicas=4), 0)
    takes(lease, 2, 0)
    ask = lease.ask(TURN_NS)
    assert ask is not None
    assert ask.charged == 2
    lease.granted(Grant(tokens=ask.want, level=5, wait_ns=0))
    assert lease.ask(TURN_NS) is None or lease.ask(TURN_NS).charged == 0  # type: ignore[union-attr]


def test_a_lease_is_for_the_demand_of_the_next_tenths_of_a_second() -> None:
    lease = Lease(Tenant(name="large", requests_per_minute=600_000), Sharing(), 0)
    now_ns, wanted = 0, []
    for _ in range(30):  # 5,000 a second
        takes(lease, 500, now_ns)
        now_ns += TURN_NS
        if (ask := lease.ask(now_ns)) is not None:
            wanted.append(ask.want)
            lease.granted(Grant(tokens=ask.want, level=6000, wait_ns=0))
    assert 500 <= wanted[-1] <= 5000 * AHEAD_NS / 1e9
    assert lease.refused < 500


def test_tokens_are_given_back_when_demand_ends() -> None:
    lease = Lease(ACME, Sharing(replicas=4), 0)
    takes(lease, 2, 0)
    ask = lease.ask(TURN_NS)
    assert ask is not None
    lease.granted(Grant(tokens=6, level=2, wait_ns=0))
    now_ns, returned = TURN_NS, 0
    while not lease.is_idle:
        now_ns += TURN_NS
        if (ask := lease.ask(now_ns)) is not None:
            returned += ask.returned
            lease.granted(Grant(tokens=0, level=8, wait_ns=0))
    assert returned == 6
    assert now_ns <= PATIENCE_NS + 2 * TURN_NS
    assert lease.admitted == 2


def test_tokens_of_a_lease_that_was_not_renewed_are_void() -> None:
    lease = Lease(ACME, Sharing(), 0)
    takes(lease, 10, 0)
    assert lease.ask(TURN_NS) is not None
    lease.granted(Grant(tokens=6, level=0, wait_ns=60 * MS))
    assert lease.take(TURN_NS + LASTS_NS - 1)
    assert not lease.take(TURN_NS + LASTS_NS)


def test_a_scarce_limit_gives_no_credit_and_says_when_to_come_again() -> None:
    lease = Lease(ACME, Sharing(), 0)
    takes(lease, 10, 0)
    assert lease.ask(TURN_NS) is not None
    lease.granted(Grant(tokens=0, level=-2, wait_ns=180 * MS))
    assert takes(lease, 5, TURN_NS) == 0
    assert lease.refusal(TURN_NS) == (Reason.RATE, 180 * MS)
    assert lease.remaining(TURN_NS) == 0
    assert lease.ask(TURN_NS + 100 * MS) is None  # nothing to gain yet
    ask = lease.ask(TURN_NS + 180 * MS)
    assert ask is not None
    assert ask.want > 0


def test_when_the_store_is_down_a_replica_keeps_to_its_share() -> None:
    sharing = Sharing(replicas=4)
    lease = Lease(ACME, sharing, 0)
    takes(lease, 2, 0)
    lease.ask(TURN_NS)
    lease.lost()
    sharing.alone_since_ns = 2 * TURN_NS
    admitted = sum(lease.take(now_ns) for now_ns in range(2 * TURN_NS, 2 * TURN_NS + MINUTE_NS, 10 * MS))
    assert 246 <= admitted <= 250
    assert lease.refusal(MINUTE_NS)[0] is Reason.RATE


def test_without_a_store_one_replica_keeps_the_limit_exactly() -> None:
    lease = Lease(Tenant(name="acme", burst=1), Sharing(alone_since_ns=0), 0)
    assert sum(lease.take(now_ns) for now_ns in range(0, 2 * MINUTE_NS, 10 * MS)) == 2000
    burst = Lease(ACME, Sharing(alone_since_ns=0), 5)
    assert takes(burst, 30, 5) == 10
    assert burst.remaining(5) == 0
    assert burst.refusal(5) == (Reason.RATE, 60 * MS)
    assert takes(burst, 30, 5 + 60 * MS) == 1


def test_the_total_of_a_day_ends_at_midnight() -> None:
    daily = Tenant(name="acme", per_day=3)
    lease = Lease(daily, Sharing(alone_since_ns=0, day_ends_ns=1000), 0)
    assert takes(lease, 5, 0) == 3
    assert lease.refusal(0) == (Reason.DAY, 1000)
    assert takes(lease, 5, 1000) == 3


def test_it_tells_what_is_left_of_the_day() -> None:
    assert Lease(ACME, Sharing(), 0).day_left(0) is None
    alone = Lease(Tenant(name="acme", per_day=9), Sharing(alone_since_ns=0, day_ends_ns=1000, replicas=3), 0)
    takes(alone, 1, 0)
    assert [alone.day_left(now_ns) for now_ns in (0, 999, 1000)] == [2, 2, 3]
    shared = Lease(Tenant(name="acme", per_day=9), Sharing(day_ends_ns=DAY_NS), 0)
    assert shared.day_left(0) == 9  # as far as it knows
    takes(shared, 2, 0)
    assert shared.ask(TURN_NS) is not None
    shared.granted(Grant(tokens=3, level=5, wait_ns=0, day_left=4))
    assert shared.day_left(TURN_NS) == 7
    takes(shared, 4, TURN_NS)  # one of them on credit
    assert shared.day_left(TURN_NS) == 3
    assert shared.remaining(TURN_NS) <= 3
    assert shared.day_left(DAY_NS - 1) == 3
    assert shared.day_left(DAY_NS) == 9


def test_what_was_admitted_without_the_store_counts_for_the_day() -> None:
    sharing = Sharing(replicas=2, alone_since_ns=1)
    lease = Lease(Tenant(name="acme", requests_per_minute=6000, per_day=100), sharing, 0)
    admitted = sum(lease.take(now_ns) for now_ns in range(1, 20 * 1000 * MS, 10 * MS))
    assert admitted == 50
    ask = lease.ask(20 * 1000 * MS)
    assert ask is not None
    assert ask.counted == 50
    lease.lost()
    again = lease.ask(21 * 1000 * MS)
    assert again is not None
    assert again.counted == 50


@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 20), st.integers(0, 8), st.integers(0, 8)),
        max_size=40,
    )
)
def test_the_shared_limit_is_a_bucket_that_may_be_in_debt(asks: list[tuple[int, int, int, int]]) -> None:
    bucket, counter, now_ns = Bucket(PACE), Counter(), NOON_NS
    bucket.refill(now_ns)
    for pause_ms, want, charged, returned in asks:
        now_ns += pause_ms * MS
        bucket.refill(now_ns)
        before = bucket.level
        bucket.level = min(Fraction(PACE.burst), before - charged + returned)
        counter, grant = settle(counter, asked(want=want, charged=charged, returned=returned), now_ns)
        assert grant.tokens == max(0, min(want, bucket.level // 1))
        bucket.level -= grant.tokens
        assert grant.level == bucket.level // 1
        assert (grant.wait_ns == 0) == (grant.level >= 1)


def test_a_grant_never_exceeds_what_is_left_of_the_day() -> None:
    counter, grant = settle(Counter(), Ask("acme", PACE, 5, want=4), NOON_NS)
    assert (grant.tokens, grant.day_left) == (4, 1)
    counter, grant = settle(counter, Ask("acme", PACE, 5, want=4, returned=1), NOON_NS)
    assert (grant.tokens, grant.day_left) == (2, 0)
    assert grant.wait_ns == DAY_NS // 2
    _, grant = settle(counter, Ask("acme", PACE, 5, want=4), NOON_NS + DAY_NS // 2)
    assert (grant.tokens, grant.day_left) == (4, 1)


@given(st.lists(st.tuples(st.sampled_from(["take", "turn", "lose", "pause"]), st.integers(1, 9)), max_size=120))
def test_the_books_of_lease_and_limit_balance_whatever_happens(events: list[tuple[str, int]]) -> None:
    sharing = Sharing(replicas=2)
    lease, counter, now_ns = Lease(ACME, sharing, 0), Counter(), 0
    admitted = refused = booked = 0
    for event, count in events:
        if event == "take":
            passed = takes(lease, count, now_ns)
            admitted, refused = admitted + passed, refused + count - passed
        elif event == "pause":
            now_ns += count * 50 * MS
        elif (ask := lease.ask(now_ns)) is not None:
            assert min(ask.want, ask.charged, ask.returned) >= 0
            if event == "lose":
                sharing.alone_since_ns = sharing.alone_since_ns or now_ns + 1
                now_ns += 1
                lease.lost()
            else:
                sharing.alone_since_ns = None
                counter, grant = settle(counter, ask, NOON_NS + now_ns)
                booked += ask.charged + grant.tokens - ask.returned
                lease.granted(grant)
        assert (lease.admitted, lease.refused) == (admitted, refused)
        assert lease.remaining(now_ns) >= 0
    if not any(event == "lose" for event, _ in events):
        last = lease.end()
        assert booked + (last.charged - last.returned if last is not None else 0) == admitted
