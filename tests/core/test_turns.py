"""Tests how a batch is divided if a tenant asks for more than its share. A batch takes 2 ms plus 0.3 ms per row."""

from serving.core.batcher import Batcher
from tests.core.stories import batcher, ms, request


def crowded(victims: int, flood: int, *, budget_ms: float = 40.0) -> Batcher:
    b = batcher(fixed_ms=2.0, per_row_ms=0.3, max_rows=64)
    for number in range(victims):
        b.offer(request(tenant=f"victim {number}", budget_ms=budget_ms))
    for _ in range(flood):
        b.offer(request(tenant="flood", budget_ms=budget_ms))
    return b


def test_a_flood_does_not_stretch_the_batch_beyond_four_fifths_of_the_throughput() -> None:
    batch = crowded(victims=7, flood=150).cut(0, 0).batch
    assert batch is not None
    assert sum(one.tenant != "flood" for one in batch.requests) == 7
    # Half of the budget is 20 ms: 60 rows at 3 rows per ms. Four fifths of this throughput need 17 rows or 7.1 ms.
    assert 15 <= batch.rows <= 19


def test_requests_within_their_share_are_all_in_the_batch_and_the_flood_gets_a_row() -> None:
    b = batcher(fixed_ms=2.0, per_row_ms=0.3, max_rows=64)
    for number in range(28):
        b.offer(request(tenant=f"victim {number % 7}", budget_ms=40))
    for _ in range(150):
        b.offer(request(tenant="flood", budget_ms=40))
    batch = b.cut(0, 0).batch
    assert batch is not None
    assert batch.rows == 29
    assert sum(one.tenant == "flood" for one in batch.requests) == 1


def test_where_all_tenants_flood_the_batch_takes_half_the_budget() -> None:
    b = batcher(fixed_ms=2.0, per_row_ms=0.3, max_rows=64)
    for tenant in "ab":
        for _ in range(150):
            b.offer(request(tenant=tenant, budget_ms=40))
    batch = b.cut(0, 0).batch
    assert batch is not None
    assert 55 <= batch.rows <= 60


def test_a_tenant_that_is_a_batch_ahead_is_not_within_its_share_however_few_rows_wait() -> None:
    b = crowded(victims=1, flood=150)
    b.shares.charge("victim 0", ms(100))
    batch = b.cut(0, 0).batch
    assert batch is not None
    assert batch.rows >= 55


def test_a_flood_that_waits_alone_leaves_room_for_tenants_that_were_active_lately() -> None:
    alone = batcher(fixed_ms=2.0, per_row_ms=0.3, max_rows=64)
    beside = batcher(fixed_ms=2.0, per_row_ms=0.3, max_rows=64)
    beside.offer(request(tenant="victim", budget_ms=40))
    first = beside.cut(0, 0).batch
    assert first is not None
    beside.settle(first, ms(3))
    for b in (alone, beside):
        for _ in range(100):
            b.offer(request(tenant="flood", at_ms=3, budget_ms=40))
    unhindered, held = alone.cut(0, ms(3)).batch, beside.cut(0, ms(3)).batch
    assert unhindered is not None
    assert held is not None
    assert unhindered.rows >= 55
    assert held.rows <= 19
