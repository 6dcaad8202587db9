"""The number of rows that a batch is padded to."""

from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes

SLOW_NS, FAST_NS = 100_000_000, 100_000


def taught() -> LatencyModel:
    """One row took long, and eight did not: kernels that prefer eight, or a row that was larger than those."""
    model = LatencyModel()
    for _ in range(10):
        model.teach(1, 1, SLOW_NS)
        model.teach(8, 1, FAST_NS)
    return model


def test_a_batch_of_equal_rows_is_filled_up_to_a_size_that_is_faster() -> None:
    model = taught()
    model._observed += 1  # now and then nothing is filled up
    assert Sizes(largest_rows=64).fastest_rows(1, model, 1) == 8


def test_a_batch_is_not_filled_up_where_the_rows_measured_may_have_been_smaller() -> None:
    model = taught()
    model._observed += 1
    assert Sizes(largest_rows=64, alike=False).fastest_rows(1, model, 1) == 1
