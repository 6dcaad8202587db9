"""Distributions of sizes and pauses, by name: `8`, `uniform(1, 8)`, `lognormal(12, 0.6)`, `choice(1, 8, 64)`. Pure
functions."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtest.spec import BadSpec, call, parse

Draw = Callable[[random.Random], float]


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution from which numbers are drawn with a seeded generator. `text` is its notation."""

    text: str
    draw: Draw

    @classmethod
    def parse(cls, text: str | float, field: str) -> "Distribution":
        """Parses the notation of a distribution. A number alone is a constant. Raises BadSpec."""
        written = str(text).strip()
        try:
            return cls(written, fixed(float(written)))
        except ValueError as error:
            if not written[:1].isalpha():
                raise BadSpec(f"{field}: {error}") from None
        return cls(written, call(parse(written, field), KINDS, field))

    def number(self, generator: random.Random) -> float:
        return self.draw(generator)

    def size(self, generator: random.Random) -> int:
        """Draws a whole number, at least 1."""
        return max(1, round(self.draw(generator)))


def fixed(value: float) -> Draw:
    _check(value >= 0 and math.isfinite(value), f"must not be negative, got {value}")
    return lambda _: value


def uniform(least: float, most: float) -> Draw:
    """Draws uniformly from `least` to `most`."""
    _check(0 <= least <= most, f"expected 0 <= least <= most, got {least} and {most}")
    return lambda generator: generator.uniform(least, most)


def lognormal(median: float, sigma: float) -> Draw:
    """Draws from a lognormal distribution, which has a long tail like the lengths of texts. A typical sigma is 0.6."""
    _check(median > 0 and sigma >= 0, f"expected median > 0 and sigma >= 0, got {median} and {sigma}")
    return lambda generator: generator.lognormvariate(math.log(median), sigma)


def exponential(mean: float) -> Draw:
    """Draws from an exponential distribution: memoryless pauses."""
    _check(mean > 0, f"mean: must be positive, got {mean}")
    return lambda generator: generator.expovariate(1 / mean)


def choice(*values: float) -> Draw:
    """Draws one of the values with equal probability. A value given twice is twice as likely."""
    _check(bool(values) and min(values) >= 0, f"expected one value or more, none negative, got {values}")
    return lambda generator: generator.choice(values)


KINDS: Mapping[str, Callable[..., Draw]] = {
    "uniform": uniform,
    "lognormal": lognormal,
    "exponential": exponential,
    "choice": choice,
}


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
