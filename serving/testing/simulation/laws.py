"""The time of a batch, and upper bounds for all policies.

A law gives the mean time of one padded batch; `Device` adds noise, drift and faults. In the formulas of the bounds, a
batch of b rows takes alpha*b + beta, and D is the latency budget.
"""

from bisect import bisect_left
from dataclasses import dataclass
from random import Random
from typing import Protocol

MS = 1_000_000


class Law(Protocol):
    def mean_ns(self, rows: int, length: int = 1) -> float: ...


@dataclass(frozen=True, slots=True)
class Affine:
    """An affine law: alpha_ms per row (times length, if lengths vary) and beta_ms per batch."""

    alpha_ms: float
    beta_ms: float

    def mean_ns(self, rows: int, length: int = 1) -> float:
        return (self.alpha_ms * rows * length + self.beta_ms) * MS


@dataclass(frozen=True, slots=True)
class Table:
    """A law of measured times (rows, ms), ascending, with linear interpolation, and extrapolation from the last two."""

    points: tuple[tuple[int, float], ...]

    def mean_ns(self, rows: int, length: int = 1) -> float:
        index = min(max(bisect_left(self.points, (rows, 0.0)), 1), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[index - 1], self.points[index]
        return (y0 + (y1 - y0) * (rows - x0) / (x1 - x0)) * MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A model on a device: its law, its latency budget and its largest batch."""

    name: str
    law: Affine
    budget_ms: float
    max_rows: int

    @property
    def budget_ns(self) -> int:
        return int(self.budget_ms * MS)

    def capacity_per_ms(self, lanes: int = 1) -> float:
        """Returns lambda0: the highest fluid rate at which all first-come-first-served batches, staggered over the
        lanes, finish in time."""
        ratio = self.law.beta_ms / self.budget_ms
        return lanes / self.law.alpha_ms * (1 - (1 + 1 / lanes) * ratio)

    def best_rows(self) -> int:
        """Returns b* = (D/2 - beta) / alpha: the batch size at which that capacity is reached."""
        rows = (self.budget_ms / 2 - self.law.beta_ms) / self.law.alpha_ms
        return max(1, min(self.max_rows, int(rows)))

    def bound_per_ms(self, rate: float) -> float:
        """Returns the upper bound of requests per ms answered in time at this rate of arrivals, on one lane."""
        alpha, beta, budget = self.law.alpha_ms, self.law.beta_ms, self.budget_ms
        overload = rate * (budget - beta) / (alpha * rate * budget + beta)
        full = self.max_rows / (alpha * self.max_rows + beta)
        return min(rate, overload, full)


# The three sets of Headway's study: few rows per batch, many, and a large budget.
SET_A = Setting(name="A", law=Affine(1.0, 5.0), budget_ms=25.0, max_rows=64)
SET_B = Setting(name="B", law=Affine(0.05, 1.0), budget_ms=10.0, max_rows=128)
SET_C = Setting(name="C", law=Affine(0.3, 2.0), budget_ms=40.0, max_rows=64)
SETS = (SET_A, SET_B, SET_C)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A simulated device.

    noise: relative standard deviation of batch times. Times are multiplied by `shift` from `shift_at_ns` on.
    slow_share of the batches take `slow_factor` times as long; failing_share of them fail. stall_share of them are
    delayed by other work on the machine, for `stall_ms` on average (exponential), independent of their size.
    """

    law: Law
    noise: float = 0.02
    shift: float = 1.0
    shift_at_ns: int = 0
    slow_share: float = 0.0
    slow_factor: float = 5.0
    stall_share: float = 0.0
    stall_ms: float = 0.0
    failing_share: float = 0.0

    def took_ns(self, rows: int, length: int, now_ns: int, rng: Random) -> int:
        time_ns = self.law.mean_ns(rows, length) * rng.lognormvariate(0.0, self.noise)
        if self.shift != 1.0 and now_ns >= self.shift_at_ns:
            time_ns *= self.shift
        if self.slow_share and rng.random() < self.slow_share:
            time_ns *= self.slow_factor
        if self.stall_share and rng.random() < self.stall_share:
            time_ns += rng.expovariate(1.0 / self.stall_ms) * MS
        return max(1, int(time_ns))

    def fails(self, rng: Random) -> bool:
        return bool(self.failing_share) and rng.random() < self.failing_share
