"""All compared policies by name, and the tuning of baselines."""

from collections.abc import Callable, Sequence
from functools import partial

from serving.testing.simulation.arrivals import Arrivals
from serving.testing.simulation.baselines import Aimd, Drop, NexusEarlyDrop, NexusLazy, ServeBatch, Timeout
from serving.testing.simulation.capacity import MakePolicy, run_at, sustainable_load
from serving.testing.simulation.effort import Effort
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import Setting

For = Callable[[Setting], MakePolicy]

LEAD_NS = 300_000  # the runtime's initial value: from the event loop to a lane's thread and back


def headway(setting: Setting) -> MakePolicy:
    return lambda: Headway(setting.law, setting.max_rows)


def headway_ahead(setting: Setting) -> MakePolicy:
    """Returns the policy as the runtime runs it: the next batch is cut shortly before the lane is free."""
    return lambda: Headway(setting.law, setting.max_rows, batches_per_lane=2, lead_ns=LEAD_NS)


def greedy(setting: Setting, drop: Drop = Drop.NOTHING) -> MakePolicy:
    return lambda: Timeout(setting, max_rows=setting.max_rows, drop=drop)


FIELD: dict[str, For] = {
    "greedy, no drop": greedy,
    "greedy, drop expired": partial(greedy, drop=Drop.EXPIRED),
    "greedy, drop infeasible": partial(greedy, drop=Drop.INFEASIBLE),
    "Nexus early drop": lambda setting: lambda: NexusEarlyDrop(setting),
    "Nexus lazy": lambda setting: lambda: NexusLazy(setting),
    "AIMD on batch time": lambda setting: lambda: Aimd(setting),
    "AIMD on misses": lambda setting: lambda: Aimd(setting, on_misses=True),
    "serve.batch, defaults": lambda setting: ServeBatch,
    "Headway": headway,
    "Headway, one batch ahead": headway_ahead,
}


def timeout_at(wait: float, rows: int, drop: Drop = Drop.NOTHING) -> For:
    def make(setting: Setting) -> MakePolicy:
        wait_ns, most = int(wait * setting.budget_ns), min(rows, setting.max_rows)
        return lambda: Timeout(setting, max_rows=most, wait_ns=wait_ns, drop=drop)

    return make


def serve_batch_at(wait: float, rows: int) -> For:
    def make(setting: Setting) -> MakePolicy:
        wait_ns, most = max(1, int(wait * setting.budget_ns)), min(rows, setting.max_rows)
        return lambda: ServeBatch(max_rows=most, wait_ns=wait_ns)

    return make


def timeout_grid(effort: Effort, drop: Drop) -> list[For]:
    return [timeout_at(wait, rows, drop) for wait, rows in effort.grid]


def serve_batch_grid(effort: Effort) -> list[For]:
    return [serve_batch_at(wait, rows) for wait, rows in effort.grid]


def tuned(setting: Setting, grid: Sequence[For], arrivals: Arrivals, effort: Effort) -> For:
    """Returns the best policy of the grid for this setting and these arrivals, found on a seed that is not measured."""

    def merit(make: For) -> tuple[float, float]:
        """Returns the sustainable load and, to break ties, the share in time at a slightly higher load."""
        policy, count, seed = make(setting), effort.grid_count, effort.seed
        load = sustainable_load(setting, policy, arrivals, count=count, seeds=(seed,), steps=effort.grid_steps)
        return load, run_at(setting, policy, arrivals, load + 0.05, count=count, seed=seed).in_time

    return max(grid, key=merit)
