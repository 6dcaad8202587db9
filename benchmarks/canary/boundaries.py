"""The judge's tests as tables: how many hits of how many trials show a claim. Computed by the product's own functions.

Beyond DENSE trials the tables hold every two-thousandth number only, and in between are stricter than the judge, by at
most one in two thousand trials.
"""

from functools import cache
from math import log

import numpy as np

from serving.traffic.e_process import log_e_above, log_e_below

DENSE = 2000


@cache
def fewest_above(limit: float, alpha: float, most: int) -> np.ndarray:
    """Returns, by the number of trials up to `most`, the fewest hits that show a share above the limit."""
    hits, found, needed = 0, np.zeros(most + 1, np.int64), -log(alpha)
    last = -1
    for trials in _points(most):
        while hits <= trials and log_e_above(hits, trials, limit) < needed:
            hits += 1
        found[last + 1 : trials + 1] = hits
        last = trials
    return found


@cache
def most_below(limit: float, alpha: float, most: int) -> np.ndarray:
    """Returns, by the number of trials up to `most`, the most hits that show a share below the limit; -1 if none do."""
    hits, found, needed = -1, np.zeros(most + 1, np.int64), -log(alpha)
    points = _points(most)
    for trials, following in zip(points, [*points[1:], most + 1], strict=True):
        while hits < trials and log_e_below(hits + 1, trials, limit) >= needed:
            hits += 1
        found[trials:following] = hits
    return found


def _points(most: int) -> list[int]:
    points, trials = [], 0
    while trials < most:
        points.append(trials)
        trials += max(1, trials // DENSE)
    return [*points, most]
