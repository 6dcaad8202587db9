"""Tests which shape is cut next. A batch takes 2 ms plus 0.01 ms per row and token unless stated."""

from collections import Counter

import pytest

from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.latency import LatencyModel
from tests.core.stories import batcher, ms, request

LENGTHS = (8, 16, 32, 64)


def texts(waiting: dict[int, int], *, budget_ms: float | None = 100.0) -> Batcher:
    """Returns a batcher with this many texts of each length in its queue, all of which arrived at 0 ms."""
    b = batcher(fixed_ms=2.0, per_row_ms=0.01, max_rows=16, lengths=LENGTHS)
    for length, count in waiting.items():
        for _ in range(count):
            b.offer(request(length=length, budget_ms=budget_ms))
    return b


def cut(of: Batcher, at_ms: float = 0.0) -> Batch:
    batch = of.cut(0, ms(at_ms)).batch
    assert batch is not None
    return batch


def test_a_full_batch_of_one_shape_goes_before_a_mixed_one_whatever_the_order_of_arrival() -> None:
    batch = cut(texts({64: 2, 8: 3, 32: 16}))
    assert batch.length == 32
    assert {one.length for one in batch.requests} == {32}


def test_a_shape_that_can_no_longer_wait_goes_first() -> None:
    b = texts({32: 16})
    b.offer(request(length=64, budget_ms=9))
    batch = cut(b)
    assert batch.length == 64


def test_neighbouring_lengths_share_a_batch_and_distant_ones_do_not() -> None:
    b = batcher(fixed_ms=2.0, per_row_ms=0.01, max_rows=16, lengths=(8, 28, 32))
    for length, count in {8: 10, 28: 8, 32: 8}.items():
        for _ in range(count):
            b.offer(request(length=length, budget_ms=100))
    assert Counter(one.length for one in cut(b).requests) == {32: 8, 28: 8}


def test_while_one_batch_can_take_all_shapes_they_share_it() -> None:
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


def test_requests_that_join_make_no_other_request_late() -> None:
    b = texts({16: 4}, budget_ms=2.9)
    for _ in range(4):
        b.offer(request(length=8, budget_ms=2.9))
    batch = cut(b)
    assert batch.finish_ns <= ms(3.0)


class Asked(LatencyModel):
    """A latency model that counts the calls of `predict_ns`."""

    count = 0

    def predict_ns(self, rows: int, length: int = 1) -> int:
        self.count += 1
        return super().predict_ns(rows, length)


@pytest.mark.parametrize("budget_ms", [None, 60_000.0])
@pytest.mark.parametrize("kind", ["group", "length"])
def test_what_a_cut_costs_does_not_grow_with_the_number_of_shapes(kind: str, budget_ms: float | None) -> None:
    def questions(shapes: int) -> int:
        b = texts({}, budget_ms=None)
        b.latency = asked = Asked(lengths=LENGTHS)
        for length in LENGTHS:
            asked.teach(1, length, ms(2))
            asked.teach(16, length, ms(2 + 0.16 * length))
        for number in range(shapes):
            b.offer(request(at_ms=number / 1000, budget_ms=budget_ms, **{kind: 100 + number}))
        cut(b, 10)
        return asked.count

    lengths_asked = 1 if kind == "group" else 800  # one call per length to check its deadlines
    assert questions(900) <= questions(100) + lengths_asked


def test_among_many_shapes_the_oldest_go_first_the_fullest_are_compared_and_none_starves() -> None:
    b = texts({})
    for number in range(300):
        b.offer(request(group=f"odd {number}", at_ms=number / 1000))
    for _ in range(16):
        b.offer(request(group="usual", at_ms=1))
    b.offer(request(group="other tenant", tenant="b", at_ms=2))
    served: list[object] = []
    now_ms = 3.0
    while b.queue:
        batch = cut(b, now_ms)
        served.append(batch.requests[0].group)
        now_ms += 3
        b.settle(batch, ms(now_ms))
    assert "usual" in served[:3]
    assert "other tenant" in served[:3]
    odd = [group for group in served if str(group).startswith("odd")]
    assert len(odd) == 300
    places = {f"odd {number}": number for number in range(300)}
    assert all(abs(places[str(group)] - place) <= 2 for place, group in enumerate(odd))


def test_a_shape_that_can_wait_no_longer_is_seen_among_many() -> None:
    b = texts({})
    for number in range(300):
        b.offer(request(group=number))
    b.offer(request(group="urgent", at_ms=1, budget_ms=4.3))
    assert cut(b, 1.0).requests[0].group == "urgent"
