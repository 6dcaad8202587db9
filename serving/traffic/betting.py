"""Limits of a mean of values between 0 and 1, which hold at all times at once.

Pure. A gambler bets on every value that the mean is above `m`: she wins only by chance if it is not, so means that made
her rich are ruled out (the betting confidence sequence of Waudby-Smith and Ramdas, with a fixed mixture of bets).
Values are rounded to hundredths, so that counts of them are all that has to be kept.
"""

from collections.abc import Mapping
from math import exp, log

PARTS = 100  # values are kept as whole numbers of hundredths
_BETS = tuple(0.98 * 2.0**-step for step in range(14))  # the share of her capital that is at stake
_HALVINGS = 14


def lower_limit(values: Mapping[int, int], alpha: float) -> float:
    """Returns a number that the mean is above. values: how often each was seen, in hundredths.

    The chance that the mean is ever below one of these numbers is at most alpha. It is 0 without values."""
    if not any(values):
        return 0.0
    below, above = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if log_capital(values, middle) >= -log(alpha):
            below = middle
        else:
            above = middle
    return below


def upper_limit(values: Mapping[int, int], alpha: float) -> float:
    """Returns a number that the mean is below, as `lower_limit` does for above. It is 1 without values."""
    return 1 - lower_limit({PARTS - value: count for value, count in values.items()}, alpha)


def mean(values: Mapping[int, int]) -> float | None:
    """Returns the mean of the values, None without one."""
    count = sum(values.values())
    return sum(value * times for value, times in values.items()) / PARTS / count if count else None


def log_capital(values: Mapping[int, int], m: float) -> float:
    """Returns the logarithm of the gambler's capital, who bets that the mean is above m. It falls with m."""
    logs = [sum(times * log(1 - bet + bet * value / PARTS / m) for value, times in values.items()) for bet in _BETS]
    largest = max(logs)
    return largest + log(sum(exp(each - largest) for each in logs) / len(logs))
