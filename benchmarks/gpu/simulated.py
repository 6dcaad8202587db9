"""`python -m benchmarks.gpu.simulated`: compares goodput of batching decisions alone.

The engine is compared with fixed configurations as in `benchmarks.gpu`, but in simulated time: with the times of an
H200, and measured costs of the host. On a shared machine, other processes affect a run in real time; this benchmark
gives the same numbers every time, on any machine, and needs no GPU and no torch.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np

from benchmarks.gpu.fixed import Configuration, configured, grid
from benchmarks.gpu.goodput import (
    BUDGET_IN_SINGLES,
    COUNTS,
    FINAL_SEEDS,
    FINALISTS,
    LOADS,
    LOOP_SHARE,
    sustainable_rate,
)
from benchmarks.gpu.virtual import MS, US, Costs, DeviceNs, Host, VirtualModel, charge_for_cuts, engine_on
from models.spec import Limits, ModelSpec, TensorSpec
from serving.core.outcome import Completed, Outcome
from serving.runtime.engine import Engine

MEASURED = Path(__file__).parents[2] / "docs" / "benchmarks" / "gpu.json"
LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LENGTHS = (16, 24, 32, 48, 64, 96, 128)
COPY_NS = {"mlp": 1 * US, "convnet": 15 * US, "encoder": 1 * US, "transformer": 15 * US}
IN_FLIGHT = 6 * LADDER[-1]
WARM_SHARE = 0.3  # of a run; not counted, because the engine is still learning the host's costs


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The parameters that all compared configurations share."""

    name: str
    device_ns: DeviceNs
    lengths: tuple[int, ...]
    costs: Costs
    stall_every_ns: int = 0
    stall_ns: int = 0

    def engine(self, seed: int) -> tuple[Host, Engine]:
        tensor = partial(TensorSpec, datatype="FP32", shape=(-1, 1))
        limits = Limits(max_batch_rows=LADDER[-1], max_queue_requests=1 << 16)
        spec = ModelSpec(
            name=self.name, factory="a:b", inputs=(tensor(name="x"),), outputs=(tensor(name="y"),), limits=limits
        )
        host = Host(seed, self.stall_every_ns, self.stall_ns)
        return host, engine_on(host, VirtualModel(spec, self.lengths), self.device_ns, self.costs, LADDER)

    def sizes(self, random: np.random.Generator, count: int) -> list[int]:
        """Draws lengths of requests, as in `benchmarks.gpu.models`."""
        if len(self.lengths) == 1:
            return [1] * count
        drawn = np.clip(np.round(random.lognormal(np.log(32.0), 0.7, count)), 8, self.lengths[-1])
        return [int(length) for length in drawn]


def worlds(path: Path = MEASURED) -> dict[str, World]:
    """Returns the worlds by model, from the measurements of torch alone by `benchmarks.gpu`."""
    found = {}
    for name, sections in json.loads(path.read_text())["models"].items():
        rows, ns = zip(*sorted((one["rows"], one["graphed_ms"] * MS) for one in sections["times"]), strict=True)
        middle = sections["times"][0]["length"]
        found[name] = World(
            name=name,
            device_ns=partial(interpolated, rows, ns, middle),
            lengths=LENGTHS if middle > 1 else (1,),
            costs=Costs(copy=COPY_NS[name]),
        )
    return found


def interpolated(rows: tuple[int, ...], ns: tuple[float, ...], middle: int, count: int, length: int) -> float:
    """Interpolates the device's time between the measured sizes, which all have the middle length. The part that grows
    with rows is assumed to grow with length too."""
    least = 0.98 * ns[0]
    return float(least + (np.interp(count, rows, ns) - least) * length / middle)


def alone_ns(world: World) -> int:
    """Returns the median latency of one request at a time."""
    host, engine = world.engine(seed=0)
    charge_for_cuts(engine.batcher, host, world.costs)
    took: list[int] = []

    def submit(began_ns: int) -> None:
        host.spend(world.costs.submit)
        engine.submit({"length": world.lengths[len(world.lengths) // 2]}, rows=1).then(partial(answered, began_ns))

    def answered(began_ns: int, outcome: Outcome) -> None:
        host.spend(world.costs.answer)
        took.append(host.now_ns() - began_ns)

    for number in range(50):
        host.at(number * 100 * MS, submit, number * 100 * MS)
    host.run(50 * 100 * MS)
    return int(median(took))


def saturated_per_s(world: World, seconds: float) -> float:
    """Returns the saturated rate: each answered request is followed by another."""
    host, engine = world.engine(seed=0)
    charge_for_cuts(engine.batcher, host, world.costs)
    sizes = world.sizes(np.random.default_rng(0), 256)
    done = 0

    def submit() -> None:
        host.spend(world.costs.submit)
        engine.submit({"length": sizes[done % len(sizes)]}, rows=1).then(answered)

    def answered(outcome: Outcome) -> None:
        nonlocal done
        host.spend(world.costs.answer)
        done += 1
        host.call_soon(submit)

    for _ in range(IN_FLIGHT):
        host.call_soon(submit)
    host.run(int(seconds * 1e9))
    return done / seconds


def in_time(world: World, rate: float, budget_ns: int, seconds: float, seed: int, fixed: Configuration | None) -> float:
    """Returns the share of Poisson arrivals that were answered within the budget. fixed: None for the engine's own
    queue."""
    host, engine = world.engine(seed)
    random = np.random.default_rng(1000 + seed)
    planned = np.cumsum(random.exponential(1e9 / rate, round(rate * seconds))).astype(np.int64)
    sizes = world.sizes(random, len(planned))
    instants = planned.tolist()
    is_in_time = [False] * len(instants)
    sent = 0

    def note(number: int, outcome: Outcome) -> None:
        host.spend(world.costs.answer)
        is_in_time[number] = isinstance(outcome, Completed) and host.now_ns() - instants[number] <= budget_ns

    def submit_those_due() -> None:
        nonlocal sent
        now_ns = host.now_ns()
        due = int(np.searchsorted(planned, now_ns, side="right"))
        for number in range(sent, due):
            host.spend(world.costs.submit)
            left_ns = max(1, budget_ns - (now_ns - instants[number]))
            engine.submit({"length": sizes[number]}, rows=1, timeout_ns=left_ns).then(partial(note, number))
        sent = due
        if sent < len(instants):
            host.at(max(instants[sent], host.now_ns()), submit_those_due)

    with configured(engine, fixed) if fixed else nullcontext():
        charge_for_cuts(engine.batcher, host, world.costs)
        host.at(instants[0], submit_those_due)
        host.run(instants[-1] + 2_000 * MS)
    return fmean(is_in_time[int(WARM_SHARE * len(instants)) :])


def compare(world: World, seconds: float, say: Callable[[str], None]) -> None:
    """Prints a line per load. The grid is screened with one seed; finalists and Headway are compared on others."""
    budget_ns = BUDGET_IN_SINGLES * alone_ns(world)
    _, engine = world.engine(seed=0)
    most = min(LOOP_SHARE * saturated_per_s(world, seconds / 2), sustainable_rate(engine, budget_ns))
    for load in LOADS:
        rate = load * most

        def share(seed: int, fixed: Configuration | None, seconds: float = seconds, rate: float = rate) -> float:
            return in_time(world, rate, budget_ns, seconds, seed, fixed)

        screened = sorted(grid(engine.batcher, budget_ns), key=lambda one: share(1, one, seconds / 2), reverse=True)
        finalists = [(fmean(share(seed, one) for seed in FINAL_SEEDS), str(one)) for one in screened[:FINALISTS]]
        ours = fmean(share(seed, None) for seed in FINAL_SEEDS)
        best, configuration = max(finalists)
        ratio = f"{ours / best:.2f}" if best > COUNTS else "-"
        say(
            f"{world.name:12} {budget_ns / MS:6.2f} {load:5.1f} {rate:8.0f} {ours:7.1%} {best:7.1%} {ratio:>6}"
            f"   {configuration}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.simulated", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--models", nargs="*", help="mlp, convnet, encoder, transformer; all unless named")
    parser.add_argument("--seconds", type=float, default=1.0, help="of simulated time, for each figure")
    parser.add_argument("--stall", type=float, nargs=2, default=(0.0, 0.0), metavar=("MS", "EVERY"),
                        help="the host is blocked for MS ms every EVERY ms, on average")  # fmt: skip
    arguments = parser.parse_args()
    known = worlds()
    if unknown := set(arguments.models or ()) - set(known):
        parser.error(f"--models: {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    stall_ns, stall_every_ns = (int(ms * MS) for ms in arguments.stall)
    began = perf_counter()
    print("SIMULATED: the times of an H200 and a simulated host. No number here was measured on a real server.\n")
    print(f"{'model':12} {'budget':>6} {'load':>5} {'offered':>8} {'ours':>7} {'fixed':>7} {'ratio':>6}   best fixed")
    for name in arguments.models or known:
        world = replace(known[name], stall_ns=stall_ns, stall_every_ns=stall_every_ns)
        compare(world, arguments.seconds, partial(print, flush=True))
    print(f"\n{perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
