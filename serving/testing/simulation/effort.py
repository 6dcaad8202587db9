"""The amount of simulation, and its seeds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The amount of simulation.

    count: requests per run. steps: of a bisection. held_out: number of seeds for measuring, which are not used for
    tuning. waits and rows: the grid on which baselines are tuned; waits are shares of the budget.
    """

    seed: int = 1
    count: int = 10_000
    grid_count: int = 5_000
    steps: int = 7
    grid_steps: int = 6
    held_out: int = 3
    waits: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    rows: tuple[int, ...] = (8, 16, 32, 128)

    @property
    def grid(self) -> list[tuple[float, int]]:
        return [(wait, rows) for wait in self.waits for rows in self.rows]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(self.seed + 1 + number for number in range(self.held_out))


QUICK = Effort(count=2_500, grid_count=1_000, steps=5, grid_steps=4, held_out=1, waits=(0.0, 0.4), rows=(8, 128))
