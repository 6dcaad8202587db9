"""Which shape goes next. A batch takes 2 ms and 0.01 ms per row and token, unless said otherwise."""

from collections import Counter

from serving.core.batch import Batch
from serving.core.batcher import Batcher
from tests.core.stories import batcher, ms, request

LENGTHS = (8, 16, 32, 64)


def texts(waiting: dict[int, int], *, budget_ms: float | None = 100.0) -> Batcher:
    """So many texts of each length, all from the start."""
    b = batcher(fixed_ms=2.0, per_row_ms=0.01, max_rows=16, lengths=LENGTHS)
    for length, count in waiting.items():
        for _ in range(count):
            b.offer(request(length=length, budget_ms=budget_ms))
    return b


def cut(of: Batcher, at_ms: float = 0.0) -> Batch:
    batch = of.cut(0, ms(at_ms)).batch
    assert batch is not None
    return batch


def test_a_full_batch_of_one_shape_goes_before_a_mixed_one_whoever_came_first() -> None:
    batch = cut(texts({64: 2, 8: 3, 32: 16}))
    assert batch.length == 32
    assert {one.length for one in batch.requests} == {32}


def test_a_shape_that_can_no_longer_wait_goes_first() -> None:
    b = texts({32: 16})
    b.offer(request(length=64, budget_ms=9))
    batch = cut(b)
    assert batch.length == 64


def test_neighbouring_lengths_ride_together_and_distant_ones_do_not() -> None:
    b = batcher(fixed_ms=2.0, per_row_ms=0.01, max_rows=16, lengths=(8, 28, 32))
    for length, count in {8: 10, 28: 8, 32: 8}.items():
        for _ in range(count):
            b.offer(request(length=length, budget_ms=100))
    assert Counter(one.length for one in cut(b).requests) == {32: 8, 28: 8}


def test_while_one_batch_can_take_everyone_all_ride_together() -> None:
    batch = cut(texts({8: 3, 16: 3}))
    assert batch.rows == 6


def test_without_deadlines_no_shape_is_overtaken_for_ever() -> None:
    b = texts({64: 1}, budget_ms=None)
    now_ms = 0.0
    for _ in range(50):
        for _ in range(16):
            b.offer(request(length=16, at_ms=now_ms))
        batch = cut(b, now_ms)
        if batch.length == 64:
            break
        now_ms += 5.0
        b.settle(batch, ms(now_ms))
    assert 0 < now_ms <= 50


def test_riding_along_makes_nobody_late() -> None:
    b = texts({16: 4}, budget_ms=2.9)
    for _ in range(4):
        b.offer(request(length=8, budget_ms=2.9))
    batch = cut(b)
    assert batch.finish_ns <= ms(3.0)
