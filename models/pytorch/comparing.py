"""Measures the difference between the outputs of two variants of a computation."""

from dataclasses import replace

import numpy as np

from models.base import Prepared, Tensors


def difference(expected: Tensors, actual: Tensors) -> float:
    """Returns the largest difference of any output, as a share of that output's largest value; for integer and boolean
    outputs, the share of elements that differ. Infinite if names, types or shapes differ, or if only one of two
    numbers is finite.
    """
    if expected.keys() != actual.keys():
        return float("inf")
    return max((_difference(expected[name], actual[name]) for name in expected), default=0.0)


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    if expected.dtype.kind in "biu":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(other)) or not np.array_equal(
        wide[~finite], other[~finite], equal_nan=True
    ):
        return float("inf")
    off = float(np.abs(wide[finite] - other[finite]).max(initial=0.0))
    largest = float(np.abs(wide[finite]).max(initial=0.0))
    return off / largest if largest else off


def shuffled(part: Prepared) -> Prepared:
    """Returns a different input with the same values in other places, which most models accept."""
    tensors = {name: np.roll(array[::-1], 1, axis=-1) for name, array in part.tensors.items()}
    return replace(part, tensors={name: np.ascontiguousarray(array) for name, array in tensors.items()})
