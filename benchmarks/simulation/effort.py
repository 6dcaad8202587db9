"""How much is simulated, and from which seed."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """count: requests per run; steps: of a bisection; held_out: how many seeds are measured (none of them chosen on)."""

    seed: int = 1
    count: int = 20_000
    grid_count: int = 6_000
    steps: int = 8
    grid_steps: int = 6
    held_out: int = 3

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.seed + 1 + number for number in range(self.held_out))


QUICK = {"count": 3_000, "grid_count": 1_500, "steps": 5, "grid_steps": 4, "held_out": 1}
