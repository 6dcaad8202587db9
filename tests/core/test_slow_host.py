"""Tests batching where the host's work per batch, not the device, is the bottleneck.

The device takes 0.2 ms for any batch, the host 1 ms to copy it there and back.
"""

from serving.core.batch import CutReason
from serving.core.batcher import Batcher
from tests.core.stories import batcher, ms, request


def beside_a_slow_host(host_ms: float = 1) -> Batcher:
    b = batcher(fixed_ms=0.2, per_row_ms=0, batches_per_lane=2, fills_ahead=True)
    b.lead_ns = ms(2)
    b.lag_ns = ms(host_ms)
    return b


def test_no_second_batch_is_cut_before_the_first_is_back() -> None:
    b = beside_a_slow_host()
    b.offer(request())
    first = b.cut(0, 0).batch
    assert first is not None
    b.offer(request())
    found = b.cut(0, ms(0.1))
    assert found.batch is None
    assert found.ask_again_ns is None  # only the end of the first batch can change the result
    b.settle(first, ms(1.2))
    assert b.cut(0, ms(1.2)).batch is not None


def test_with_a_quick_host_a_second_batch_is_cut_while_the_first_computes() -> None:
    b = beside_a_slow_host(host_ms=0.1)
    b.offer(request())
    b.cut(0, 0)
    b.offer(request())
    assert b.cut(0, ms(0.1)).batch is not None


def test_a_full_second_batch_is_cut_although_the_host_is_slow() -> None:
    b = beside_a_slow_host()
    b.offer(request())
    b.cut(0, 0)
    for _ in range(b.sizes.largest_rows):
        b.offer(request())
    batch = b.cut(0, ms(0.1)).batch
    assert batch is not None
    assert batch.reason is CutReason.FULL


def test_a_request_that_might_be_late_is_computed_because_dropping_it_saves_the_host_nothing() -> None:
    b = beside_a_slow_host()
    tight, easy = request(at_ms=0, budget_ms=1.1), request(at_ms=0, budget_ms=10)
    b.offer(tight)
    b.offer(easy)
    found = b.cut(0, ms(0.5))
    assert found.batch is not None
    assert found.batch.requests == [tight, easy]
    assert not found.expired


def test_a_request_that_is_late_already_expires() -> None:
    b = beside_a_slow_host()
    late, easy = request(at_ms=0, budget_ms=1), request(at_ms=0, budget_ms=10)
    b.offer(late)
    b.offer(easy)
    found = b.cut(0, ms(2))
    assert found.expired == [late]
    assert found.batch is not None
    assert found.batch.requests == [easy]
    b.offer(request(at_ms=2, budget_ms=1))
    b.settle(found.batch, ms(5))
    found = b.cut(0, ms(5))
    assert found.batch is None
    assert len(found.expired) == 1
