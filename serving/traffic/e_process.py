"""The evidence that a share lies above, or below, a limit: e-processes, which may be looked at after every request.

Pure. An e-process starts at 1, and if its hypothesis holds, the chance that it ever reaches 1/alpha is at most alpha
(Ville's inequality), however often it is looked at. These are likelihood ratios against the limit, averaged over all
shares beyond it (a mixture over Beta(1, 1) truncated at the limit). `docs/judge.md` holds formulas and sources.
"""

from math import exp, inf, lgamma, log, log1p

_TINY = 1e-300
_CLOSE = 1e-14


def log_e_above(hits: int, trials: int, limit: float) -> float:
    """Returns the logarithm of the evidence that more than `limit` of all trials are hits. 0 < limit < 1.

    It rises with `hits` for the same number of trials. The hypothesis is that each trial hits with a chance of at most
    `limit`, whatever came before."""
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} hits of {trials} trials")
    misses = trials - hits
    # The integral of p^hits (1-p)^misses over the shares p above the limit, divided by (1-limit) and by its integrand
    # at the limit: the powers cancel against those of the continued fraction.
    if (1 - limit) * (trials + 4) < misses + 2:
        return log(limit) + _log_fraction(1 - limit, misses + 1, hits + 1) - log(misses + 1)
    whole = (
        lgamma(hits + 1) + lgamma(misses + 1) - lgamma(trials + 2)
        - hits * log(limit) - (misses + 1) * log1p(-limit)
    )  # fmt: skip
    beyond = log(limit) + _log_fraction(limit, hits + 1, misses + 1) - log(hits + 1)
    return whole + log1p(-exp(beyond - whole)) if beyond < whole else -inf


def log_e_below(hits: int, trials: int, limit: float) -> float:
    """Returns the logarithm of the evidence that fewer than `limit` of all trials are hits. It falls with `hits`."""
    return log_e_above(trials - hits, trials, 1 - limit)


def _log_fraction(x: float, a: float, b: float) -> float:
    """Returns the logarithm of the continued fraction of the incomplete beta function, by Lentz's method.

    The function is x^a (1-x)^b / a times this fraction (DLMF 8.17.22). Converges in about sqrt(max(a, b)) steps for
    x < (a+1)/(a+b+2)."""
    c, d = 1.0, 1 / _far(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 1000 + 20 * int(max(a, b) ** 0.5)):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _far(1 + term * d)
            c = _far(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < _CLOSE:
            break
    return log(value)


def _far(value: float) -> float:
    """Returns the value, or one that can be divided by."""
    return value if abs(value) > _TINY else _TINY
