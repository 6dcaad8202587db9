"""Tests when a batch is cut and which requests it contains. A batch takes 5 ms plus 1 ms per row unless stated."""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.core.batch import Batch, CutReason
from serving.core.outcome import Reason
from serving.core.request import Request
from tests.core.stories import batcher, ms, request


def cut(of, at_ms: float) -> Batch:
    """Returns the batch that lane 0 gets at this time."""
    batch = of.cut(0, ms(at_ms)).batch
    assert batch is not None
    return batch


def test_a_single_idle_lane_does_not_wait_for_more_requests() -> None:
    b = batcher()
    alone = request()
    b.offer(alone)
    batch = cut(b, 0)
    assert batch.requests == [alone]
    assert batch.reason is CutReason.IDLE


def test_nothing_is_cut_while_the_lane_is_busy() -> None:
    b = batcher()
    b.offer(request())
    cut(b, 0)
    b.offer(request())
    assert b.cut(0, ms(1)).batch is None


def test_all_requests_that_arrived_meanwhile_are_in_the_next_batch() -> None:
    b = batcher()
    b.offer(request())
    first = cut(b, 0)
    waiting = [request(at_ms=1) for _ in range(5)]
    for one in waiting:
        b.offer(one)
    b.settle(first, ms(6))
    assert cut(b, 6).requests == waiting


@pytest.mark.parametrize("at_ms", [1, 100])  # while the first batch is computed, and after it has overrun
def test_a_full_batch_is_cut_ahead_for_a_device_that_queues_and_a_smaller_one_is_not(at_ms: float) -> None:
    b = batcher(batches_per_lane=2, fills_ahead=True)
    b.offer(request())
    cut(b, 0)
    for _ in range(7):
        b.offer(request(at_ms=1))
    assert b.cut(0, ms(at_ms)).batch is None
    b.offer(request(at_ms=1))
    assert len(cut(b, at_ms).requests) == 8
    b.offer(request(at_ms=1))
    assert b.cut(0, ms(at_ms)).batch is None  # a lane holds at most two batches


def test_the_next_batch_is_cut_only_shortly_before_the_lane_is_free() -> None:
    b = batcher(batches_per_lane=2, lead_ms=1)
    b.offer(request())
    first = cut(b, 0)
    b.offer(request(at_ms=1))
    early = b.cut(0, ms(1))
    assert early.batch is None
    assert early.ask_again_ns == first.finish_ns - ms(1)
    b.offer(request(at_ms=2))
    assert early.ask_again_ns is not None
    assert len(cut(b, early.ask_again_ns / 1e6).requests) == 2


def test_no_batch_is_cut_behind_one_that_overruns() -> None:
    b = batcher(batches_per_lane=2, lead_ms=1)
    b.offer(request())
    cut(b, 0)
    b.offer(request(at_ms=1))
    late = b.cut(0, ms(60))
    assert late.batch is None
    assert late.ask_again_ns is None


def test_a_full_batch_stops_at_the_limit() -> None:
    b = batcher(max_rows=4)
    for _ in range(6):
        b.offer(request())
    batch = cut(b, 0)
    assert len(batch.requests) == 4
    assert batch.reason is CutReason.FULL


def test_a_tight_deadline_keeps_the_batch_short() -> None:
    b = batcher(max_rows=64)
    tight = request(budget_ms=15)
    b.offer(tight)
    for _ in range(20):
        b.offer(request(budget_ms=500))
    batch = cut(b, 0)
    assert tight in batch.requests
    assert batch.finish_ns <= ms(15)
    assert batch.reason is CutReason.DEADLINE


def test_the_earliest_deadline_goes_first_whatever_the_order_of_arrival() -> None:
    b = batcher(max_rows=1)
    patient, urgent = request(budget_ms=100), request(budget_ms=50)
    b.offer(patient)
    b.offer(urgent)
    assert cut(b, 0).requests == [urgent]


def test_a_batch_is_so_short_that_its_answers_go_out_in_time_too() -> None:
    def rows_cut(answers_take_ms: float) -> int:
        one = batcher(fixed_ms=10, per_row_ms=1, max_rows=64)
        for _ in range(100):
            one.answered(ms(answers_take_ms))
        for _ in range(30):
            one.offer(request(budget_ms=42))
        cut = one.cut(0, 0)
        assert cut.batch is not None
        return cut.batch.rows

    assert rows_cut(answers_take_ms=0) == 30
    assert 15 < rows_cut(answers_take_ms=10) <= 22


def test_a_request_that_can_no_longer_be_in_time_expires_and_is_never_computed() -> None:
    b = batcher()
    hopeless, fine = request(budget_ms=20), request(budget_ms=200)
    b.offer(hopeless)
    b.offer(fine)
    answer = b.cut(0, ms(18))
    assert answer.expired == [hopeless]
    assert answer.batch is not None
    assert answer.batch.requests == [fine]


def test_in_overload_the_largest_batch_in_time_is_cut_and_the_oldest_are_passed_over() -> None:
    b = batcher(max_rows=64)
    old = [request(at_ms=0, budget_ms=30) for _ in range(4)]
    fresh = [request(at_ms=18, budget_ms=30) for _ in range(14)]
    for one in old + fresh:
        b.offer(one)
    answer = b.cut(0, ms(20))
    assert answer.expired == old
    assert answer.batch is not None
    assert answer.batch.requests == fresh


def test_a_request_that_would_be_late_even_if_served_next_is_refused_at_admission() -> None:
    b = batcher(max_rows=64)
    for _ in range(32):
        b.offer(request())
    cut(b, 0)
    refused = b.admit(request(at_ms=1, budget_ms=20), ms(1))
    assert refused is not None
    assert refused.reason is Reason.DEADLINE_HOPELESS
    assert refused.retry_after_ns > 0
    assert refused.needs_ns is not None
    assert refused.needs_ns > ms(20)
    assert b.admit(request(at_ms=1, budget_ms=200), ms(1)) is None


def test_a_lane_that_idles_tries_one_request_even_if_it_will_probably_be_late() -> None:
    b = batcher(fixed_ms=30.0)
    first, second = request(budget_ms=10), request(budget_ms=12)
    assert b.admit(first, 0) is None
    b.offer(first)
    refused = b.admit(second, 0)
    assert refused is not None
    assert refused.reason is Reason.DEADLINE_HOPELESS, "one is enough to learn from"
    assert cut(b, 0).requests == [first]


def test_of_late_requests_an_idle_lane_tries_the_one_with_most_time_whose_client_waits() -> None:
    b = batcher(fixed_ms=30.0)
    short, gone, patient = request(budget_ms=10), request(timeout_ms=20), request(budget_ms=15)
    for one in (short, gone, patient):
        b.offer(one)
    decision = b.cut(0, now_ns=ms(20))
    assert decision.batch is not None
    assert decision.batch.requests == [patient]
    assert set(decision.expired) == {short, gone}


def test_where_the_plan_allows_no_request_an_idle_lane_tries_one() -> None:
    b = batcher(fixed_ms=8.0)
    for number in range(200):
        b.latency.observe(1, 1, ms(20.0 if number % 4 == 0 else 8.0))
    first, second = request(budget_ms=15), request(budget_ms=16)
    for one in (first, second):
        assert b.admit(one, 0) is None, "it can be expected to make it"
        b.offer(one)
    assert b.latency.predict_ns(1) < ms(15) < ms(16) < b.latency.plan_ns(1)
    decision = b.cut(0, 0)
    assert decision.batch is not None
    assert decision.batch.requests == [second]
    assert decision.expired == [first]


def test_a_model_that_was_slow_and_is_fast_again_is_detected() -> None:
    b = batcher(fixed_ms=1.0, per_row_ms=0.1)
    for number in range(100):
        b.latency.observe(1 + number % 8, 1, ms(60.0 if number % 3 else 30.0))
    assert b.latency.bound_ns(1) > ms(20)
    now_ms, answered = 0.0, 0
    for _ in range(100):
        one = request(at_ms=now_ms, budget_ms=20)
        if b.admit(one, ms(now_ms)) is None:
            b.offer(one)
            b.settle(cut(b, ms(now_ms)), ms(now_ms + 1.1))
            answered += 1
        now_ms += 2.0
    assert answered == 100
    assert b.latency.bound_ns(1) < ms(5)


def test_a_full_queue_refuses_with_a_retry_hint() -> None:
    b = batcher(max_requests=3)
    for _ in range(3):
        b.offer(request())
    refused = b.admit(request(), 0)
    assert refused is not None
    assert refused.reason is Reason.QUEUE_FULL
    assert refused.retry_after_ns >= ms(8)


def test_a_request_larger_than_any_batch_is_refused_with_the_reason() -> None:
    refused = batcher(max_rows=8).admit(request(rows=9), 0)
    assert refused is not None
    assert refused.reason is Reason.TOO_LARGE


def test_a_request_larger_than_what_pays_off_is_a_batch_of_its_own() -> None:
    b = batcher(fixed_ms=0.0, per_row_ms=10.0, max_rows=8)
    large, small = request(rows=6), request()
    b.offer(large)
    b.offer(small)
    assert cut(b, 0).requests == [large]


def test_a_cancelled_request_leaves_the_queue_at_once() -> None:
    b = batcher()
    gone, stays = request(), request()
    b.offer(gone)
    b.offer(stays)
    assert b.cancel(gone)
    assert not b.cancel(gone)
    assert cut(b, 0).requests == [stays]


def test_requests_of_different_groups_never_share_a_batch() -> None:
    b = batcher()
    square, wide = request(group="square"), request(group="wide")
    b.offer(square)
    b.offer(wide)
    first = cut(b, 0)
    b.settle(first, ms(6))
    second = cut(b, 6)
    assert {first.requests[0], second.requests[0]} == {square, wide}
    assert len(first.requests) == len(second.requests) == 1


def test_a_short_text_joins_a_long_one_where_that_is_cheaper_than_a_batch_of_its_own() -> None:
    b = batcher(fixed_ms=20.0, per_row_ms=0.1, lengths=(8, 16))
    long, short = request(length=16), request(length=5)
    b.offer(long)
    b.offer(short)
    batch = cut(b, 0)
    assert set(batch.requests) == {long, short}
    assert batch.length == 16


def test_a_short_text_does_not_join_a_long_one_where_padding_costs_more() -> None:
    b = batcher(fixed_ms=0.1, per_row_ms=1.0, lengths=(8, 64))
    long, short = request(length=60), request(length=5, at_ms=1)
    b.offer(long)
    b.offer(short)
    assert len(cut(b, 0).requests) == 1


def test_seats_that_would_be_padding_go_to_late_requests_whose_clients_still_wait() -> None:
    b = batcher(max_rows=64, ladder=(1, 2, 4, 8, 16, 32, 64))
    late = [request(at_ms=0, budget_ms=32) for _ in range(6)]
    fresh = [request(at_ms=22, budget_ms=35) for _ in range(14)]
    for one in late + fresh:
        b.offer(one)
    answer = b.cut(0, ms(24))
    assert answer.batch is not None
    assert answer.batch.padded_rows == 16
    assert set(fresh) <= set(answer.batch.requests)
    assert len(answer.batch.requests) == 16
    assert len(answer.expired) == 4


def test_priority_goes_first_but_no_request_starves() -> None:
    b = batcher(max_rows=1)
    low = request(priority=3, budget_ms=1000)
    b.offer(low)
    for at_ms in (10, 20):
        urgent = request(priority=1, at_ms=at_ms, budget_ms=1000)
        b.offer(urgent)
        batch = cut(b, at_ms)
        assert batch.requests == [urgent]
        b.settle(batch, ms(at_ms + 6))
    b.offer(request(priority=1, at_ms=300, budget_ms=1000))
    assert cut(b, 300).requests == [low]


@pytest.mark.parametrize("budget_ms", [600_000, None])
@pytest.mark.parametrize("priority", [0, 3, 2**64 - 1])
def test_a_request_without_a_deadline_is_not_outranked_for_ever(priority: int, budget_ms: float | None) -> None:
    b = batcher(max_rows=1)
    patient = request(priority=priority)
    b.offer(patient)
    for at_ms in range(0, 2000, 6):
        b.offer(request(at_ms=at_ms, budget_ms=budget_ms, priority=1))
        batch = cut(b, at_ms)
        if batch.requests == [patient]:
            break
        b.settle(batch, ms(at_ms + 6))
    levels = min(priority or 2, 10) - 1
    assert batch.requests == [patient]
    assert batch.cut_ns <= ms(100 * (levels + 1) + 6), "100 ms is what a level is worth here"


def test_a_passed_deadline_behind_an_urgent_request_is_seen() -> None:
    b = batcher(max_rows=1)
    b.offer(request())
    cut(b, 0)
    urgent, low = request(priority=1), request(timeout_ms=30, priority=3)
    b.offer(urgent)
    b.offer(low)
    assert b.expire(ms(10)) == []
    assert b.expire(ms(40)) == [low]
    assert b.queue.rows == len(b.queue) == 1
    assert b.expire(ms(50)) == []


def test_a_deadline_that_passes_behind_urgent_requests_expires_at_the_cut() -> None:
    b = batcher(max_rows=2)
    urgent, low = [request(priority=1, budget_ms=500) for _ in range(2)], request(budget_ms=30, priority=4)
    for one in (*urgent, low):
        b.offer(one)
    decision = b.cut(0, ms(28))
    assert decision.batch is not None
    assert decision.batch.requests == urgent
    assert decision.expired == [low]


WAITING = st.lists(
    st.tuples(
        st.integers(0, 60),  # arrives at ms
        st.sampled_from([8, 15, 40, 200, 600_000, None]),  # budget
        st.integers(0, 5),  # priority
        st.sampled_from([1, 1, 1, 2, 5]),  # rows
        st.sampled_from("ab"),  # tenant
        st.sampled_from([1, 8]),  # length
    ),
    min_size=1,
    max_size=40,
)


@given(waiting=WAITING, lengths=st.sampled_from([(1,), (1, 8)]), max_rows=st.integers(5, 16))
@example(  # two rows of low priority do not fit into the batch; the next one is theirs to miss
    waiting=[
        (0, 8, 0, 1, "a", 1),
        *[(0, 200, 0, 1, "b", 1)] * 3,
        (0, 200, 0, 2, "b", 1),
        (28, 40, 0, 1, "b", 1),
        (52, 15, 3, 2, "b", 1),
    ],
    lengths=(1,),
    max_rows=6,
)
@example(  # behind as many requests as a batch takes there is one with an earlier deadline
    waiting=[
        (0, 8, 0, 1, "b", 1), (0, 200, 3, 2, "a", 1), *[(0, 600000, 0, 1, "a", 1)] * 3, (0, 600000, 0, 2, "a", 1),
    ],
    lengths=(1,), max_rows=5,
)  # fmt: skip
def test_with_mixed_priorities_no_request_in_a_batch_is_late_and_none_waits_past_its_deadline(
    waiting: list[tuple[int, int | None, int, int, str, int]], lengths: tuple[int, ...], max_rows: int
) -> None:
    b = batcher(max_rows=max_rows, lengths=lengths, per_row_ms=0.2)
    now = ms(60)
    for at_ms, budget_ms, priority, rows, tenant, length in waiting:
        b.offer(
            request(
                at_ms=at_ms,
                budget_ms=budget_ms,
                priority=priority,
                rows=rows,
                tenant=tenant,
                length=min(length, lengths[-1]),
            )
        )
    gone = b.expire(now)
    while True:
        left = [one for by_tenant in b.queue.lines.values() for line in by_tenant.values() for one in line]
        for one in left:
            assert one.deadline_ns >= now + b.latency.predict_ns(1, one.length), "it was seen to be hopeless"
        for by_tenant in b.queue.lines.values():
            for line in by_tenant.values():
                assert line == sorted(line, key=lambda one: one.rank_ns)
                assert line.earliest_ns <= min(one.deadline_ns for one in line)
        decision = b.cut(0, now)
        gone += decision.expired
        for one in decision.expired:
            assert one.deadline_ns < now + b.latency.plan_ns(b.sizes.largest_rows, b.sizes.lengths[-1])
        if decision.batch is None:
            break
        batch = decision.batch
        finish_ns = now + b.latency.predict_ns(batch.rows, batch.length)
        alone = len(batch.requests) == 1
        assert alone or all(one.deadline_ns >= finish_ns for one in batch.requests)
        gone += batch.requests
        now = batch.finish_ns
        b.settle(batch, now, learn=False)
        gone += b.expire(now)
    assert len(gone) == len(set(gone)) == len(waiting)


def test_two_tenants_share_by_weight_when_both_are_busy() -> None:
    b = batcher(max_rows=4, weights={"gold": 3.0})
    for _ in range(200):
        b.offer(request(tenant="gold"))
        b.offer(request(tenant="free"))
    served = {"gold": 0, "free": 0}
    now = 0
    for _ in range(40):
        batch = cut(b, now / 1e6)
        for one in batch.requests:
            served[one.tenant] += 1
        now += ms(9)
        b.settle(batch, now)
    assert served["gold"] / served["free"] == pytest.approx(3.0, rel=0.1)


def test_a_tenant_that_floods_does_not_make_the_others_late() -> None:
    b = batcher(max_rows=16)
    victims: list[Request] = []
    expired: list[Request] = []
    busy: Batch | None = None
    for now_ms in range(2000):
        if busy is not None and busy.cut_ns + ms(5 + busy.rows) <= ms(now_ms):
            b.settle(busy, ms(now_ms))
            busy = None
        for _ in range(4):
            b.offer(request(tenant="flood", at_ms=now_ms, budget_ms=60))
        if now_ms % 20 == 0:
            victims.append(request(tenant="victim", at_ms=now_ms, budget_ms=60))
            b.offer(victims[-1])
        if busy is None:
            answer = b.cut(0, ms(now_ms))
            expired += answer.expired
            busy = answer.batch
    assert not [one for one in expired if one.tenant == "victim"]
    assert [one for one in expired if one.tenant == "flood"]


def test_a_tenant_returning_from_idleness_has_saved_up_no_credit() -> None:
    b = batcher(max_rows=4)
    now = 0
    for _ in range(50):
        for _ in range(4):
            b.offer(request(tenant="steady"))
        batch = cut(b, now / 1e6)
        now += ms(9)
        b.settle(batch, now)
    for _ in range(40):
        b.offer(request(tenant="steady"))
        b.offer(request(tenant="returning"))
    batch = cut(b, now / 1e6)
    assert sorted(one.tenant for one in batch.requests) == ["returning", "returning", "steady", "steady"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_request_leaves_exactly_once(seed: int) -> None:
    rng = Random(seed)
    b = batcher(max_rows=8, lengths=(8, 16, 32), batches_per_lane=2, lead_ms=1, max_requests=50)
    waiting: set[Request] = set()
    batches: list[Batch] = []
    now = 0
    for _ in range(2000):
        now += rng.randrange(ms(2))
        action = rng.random()
        if action < 0.6:
            one = request(
                tenant=rng.choice("abc"),
                rows=rng.choice([1, 1, 1, 2, 5]),
                length=rng.randrange(1, 33),
                group=rng.choice(["x", "y"]),
                at_ms=now / 1e6,
                budget_ms=rng.choice([15, 40, 200]),
                priority=rng.choice([0, 1, 3]),
            )
            if b.admit(one, now) is None:
                b.offer(one)
                waiting.add(one)
        elif action < 0.65 and waiting:
            one = rng.choice(sorted(waiting, key=lambda request: request.id))
            assert b.cancel(one)
            waiting.remove(one)
        elif action < 0.85:
            answer = b.cut(0, now)
            left = [*answer.expired, *(answer.batch.requests if answer.batch else [])]
            assert len(left) == len(set(left))
            assert set(left) <= waiting
            waiting -= set(left)
            if answer.batch is not None:
                assert answer.batch.rows <= max(8, answer.batch.requests[0].rows)
                assert len({one.group for one in answer.batch.requests}) == 1
                assert max(one.length for one in answer.batch.requests) <= answer.batch.length
                batches.append(answer.batch)
        elif batches:
            now = max(now, batches[0].start_ns + rng.randrange(ms(20)))
            b.settle(batches.pop(0), now)
        assert len(b.queue) == len(waiting)
        assert b.queue.rows == sum(one.rows for one in waiting)
