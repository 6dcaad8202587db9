"""Are these still the same answers? How outputs of two ways of computing differ, in one number."""

import numpy as np

from models.base import Prepared, Tensors


def difference(expected: Tensors, actual: Tensors) -> float:
    """The largest difference of any output, as a share of that output's largest value; of whole numbers, and of where
    a number is none, the share of places that differ. Infinite where names, types or shapes differ.
    """
    if expected.keys() != actual.keys():
        return float("inf")
    return max((_difference(expected[name], actual[name]) for name in expected), default=0.0)


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind in "biu":
        return float(np.mean(expected != actual))
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(wide)
    odd = ~((wide == other) | (np.isnan(wide) & np.isnan(other)))[~finite]
    if not np.isfinite(other[finite]).all():
        return float("inf")
    largest = np.abs(wide[finite]).max(initial=0.0)
    off = np.abs(wide - other, where=finite, out=np.zeros_like(wide)).max() if finite.any() else 0.0
    return max(float(off / largest) if largest else float(off), float(odd.mean()) if odd.size else 0.0)


def shuffled(part: Prepared) -> Prepared:
    """The same values in other places: as valid as before for most models, and another input."""
    tensors = {name: np.roll(array[::-1], 1, axis=-1) for name, array in part.tensors.items()}
    return part._replace(tensors={name: np.ascontiguousarray(array) for name, array in tensors.items()})
