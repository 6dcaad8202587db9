"""Are these still the same answers? How outputs of two ways of computing differ, in one number."""

import numpy as np

from models.base import Prepared, Tensors


def difference(expected: Tensors, actual: Tensors) -> float:
    """The largest difference of any output, as a share of that output's largest value; of whole numbers the share of
    places that differ. Infinite where names, types or shapes differ, or where only one of two numbers is finite.
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
    """The same values in other places: as valid as before for most models, and another input."""
    tensors = {name: np.roll(array[::-1], 1, axis=-1) for name, array in part.tensors.items()}
    return part._replace(tensors={name: np.ascontiguousarray(array) for name, array in tensors.items()})
