"""Tests isotonic regression: the result never falls, keeps the weighted mean and is the closest such sequence."""

from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from serving.core.isotonic import isotonic

VALUES = st.lists(st.integers(0, 4), min_size=1, max_size=5)


def distance(values: list[int], weights: list[int], fitted: list[float]) -> float:
    return sum(w * (v - f) ** 2 for v, w, f in zip(values, weights, fitted, strict=True))


def test_a_rising_sequence_stays_as_it_is() -> None:
    assert isotonic([1.0, 2.0, 2.0, 5.0], [1.0, 1.0, 1.0, 1.0]) == [1.0, 2.0, 2.0, 5.0]


def test_neighbours_in_the_wrong_order_share_their_weighted_mean() -> None:
    assert isotonic([4.0, 1.0, 9.0], [1.0, 2.0, 1.0]) == [2.0, 2.0, 9.0]


@given(values=VALUES, data=st.data())
def test_no_rising_sequence_on_a_grid_is_nearer(values: list[int], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 3), min_size=len(values), max_size=len(values)))
    fitted = isotonic(values, weights)
    assert all(low <= high for low, high in pairwise(fitted))
    grid = [step / 2 for step in range(9)]
    candidates = (list(c) for c in product(grid, repeat=len(values)) if list(c) == sorted(c))
    assert all(distance(values, weights, fitted) <= distance(values, weights, c) + 1e-9 for c in candidates)
