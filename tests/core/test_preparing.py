"""Tests which request is prepared next. The device takes 5 ms per batch and 1 ms per row, at most 8 rows."""

from serving.core.batcher import Batcher
from serving.core.preparing import Preparing
from serving.core.request import Request
from tests.core.stories import batcher, ms, request


def waiting(*requests: Request, b: Batcher | None = None) -> Preparing:
    preparing = Preparing(b or batcher(batches_per_lane=2))
    for one in requests:
        preparing.add(one)
    return preparing


def chosen(preparing: Preparing, at_ms: float = 0.0) -> list[Request]:
    """Returns all that are prepared now, in order."""
    found = []
    while (one := preparing.next(ms(at_ms))) is not None:
        found.append(one)
    return found


def test_two_batches_are_prepared_ahead_and_the_next_when_rows_have_left() -> None:
    b = batcher(batches_per_lane=2)
    all_of_them = [request(at_ms=index / 100) for index in range(30)]
    preparing = waiting(*all_of_them, b=b)
    ahead = chosen(preparing)
    assert ahead == all_of_them[:16]
    for one in ahead:
        preparing.remove(one)
        b.offer(one)
    assert preparing.next(0) is None
    assert b.cut(0, 0).batch is not None
    assert chosen(preparing) == all_of_them[16:24]


def test_a_request_that_would_be_late_behind_those_ahead_gives_way_to_one_that_would_not() -> None:
    preparing = waiting(*(request(budget_ms=100) for _ in range(8)))
    assert len(chosen(preparing)) == 8
    soon, later = request(budget_ms=20), request(budget_ms=60)
    preparing.add(soon)  # a batch of 13 ms is before it
    preparing.add(later)
    assert preparing.next(0) is later
    assert preparing.next(0) is None


def test_if_nothing_else_can_be_prepared_one_that_may_be_late_is() -> None:
    hopeless = request(budget_ms=3)
    assert waiting(hopeless).next(0) is hopeless


def test_tenants_take_turns_and_each_has_its_part_ahead() -> None:
    flood = [request(tenant="flood") for _ in range(40)]
    calm = [request(tenant="calm") for _ in range(2)]
    preparing = waiting(*flood, *calm)
    assert [one.tenant for one in chosen(preparing)[:4]] == ["flood", "calm", "flood", "calm"]
    again = request(tenant="calm")
    preparing.add(again)
    assert preparing.next(0) is again  # the flood has its part already


def test_the_urgent_of_a_tenant_go_first() -> None:
    patient, urgent = request(budget_ms=90), request(budget_ms=60)
    assert chosen(waiting(patient, urgent)) == [urgent, patient]


def test_what_can_no_longer_be_in_time_is_told_and_what_is_under_way_only_once_it_is_late() -> None:
    under_way, raw = request(budget_ms=20), request(budget_ms=20)
    preparing = waiting(under_way)
    assert preparing.next(0) is under_way
    preparing.add(raw)
    assert preparing.late(ms(13)) == []
    assert preparing.late(ms(16)) == [raw]  # a batch of one takes 6 ms
    assert preparing.late(ms(21)) == [raw, under_way]


def test_what_is_not_prepared_yet_counts_as_backlog() -> None:
    b = batcher()
    preparing = waiting(*(request() for _ in range(16)), b=b)
    assert b.backlog_ns() == ms(26)
    for one in chosen(preparing):
        preparing.remove(one)
    assert b.backlog_ns() == 0
