"""Pools measurements so that they never fall: the closest rising sequence, by weighted least squares."""

from collections.abc import Sequence


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The non-decreasing sequence nearest to `values` (pool adjacent violators; weights are positive)."""
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values, weights, strict=True):
        mean, mass, count = value, weight, 1
        while means and means[-1] > mean:
            earlier = masses.pop()
            mean = (means.pop() * earlier + mean * mass) / (earlier + mass)
            mass += earlier
            count += counts.pop()
        means.append(mean)
        masses.append(mass)
        counts.append(count)
    if len(means) == len(values):
        return means
    return [mean for mean, count in zip(means, counts, strict=True) for _ in range(count)]
