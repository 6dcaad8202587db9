"""Isotonic regression: the non-decreasing sequence closest to given values in weighted least squares."""

from collections.abc import Sequence


def isotonic(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Returns the non-decreasing sequence that minimizes the weighted squared distance to `values`.

    Uses the pool-adjacent-violators algorithm, O(n): a value below its predecessor is merged with it into a block of
    their weighted mean, repeatedly while the block before is larger. weights: positive, one per value.
    """
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
