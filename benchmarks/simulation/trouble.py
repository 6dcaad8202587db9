"""Sections on learning, faults, and several lanes."""

from random import Random

from benchmarks.simulation.report import Section
from serving.testing.simulation.arrivals import poisson
from serving.testing.simulation.capacity import sustainable_load
from serving.testing.simulation.effort import Effort
from serving.testing.simulation.executor import End, simulate
from serving.testing.simulation.field import greedy
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import SET_A, SETS, Device, Setting
from serving.testing.simulation.measures import measure
from serving.testing.simulation.workload import Stream, single

LOAD = 0.7
WORTH_JUDGING = 700  # batches; with fewer, the share of misses is mostly random


def learning(effort: Effort) -> Section:
    section = Section(
        "The learned latency model",
        "Coverage is the share of the batches within their predicted bound (wanted: 99 %). Coverage and the margin of "
        "the bound are those after a run at 0.9 of the capacity. The last column is the error of the predicted mean, "
        "30 batches after the device has become twice as slow.",
        ["set", "batches", "coverage", "margin", "error after the shift"],
    )
    for setting in SETS:
        policy, batches = _after(effort, setting, 0.9, Device(law=setting.law))
        learned = policy.batcher.latency.snapshot()
        error = _error_after_shift(policy, setting)
        section.add(setting.name, batches, learned.coverage, learned.margin, error)
        section.target(
            f"distance of the coverage from 0.99, set {setting.name}",
            0.005,
            abs(learned.coverage - policy.batcher.latency.quantile),
            at_most=True,
        )
        section.target(f"error 30 batches after a twofold shift, set {setting.name}", 0.05, error, at_most=True)
    return section


def faults(effort: Effort) -> Section:
    section = Section(
        "Faults",
        f"Headway on set A at {LOAD:g} of the capacity. Expired: requests whose deadline had passed when their batch "
        "began. Twice: requests answered twice. The ledger is checked after every event.",
        ["case", "in time", "refused or dropped", "failed", "cancelled", "expired", "twice"],
    )
    law = SET_A.law
    cases = {
        "no fault": (Device(law=law), 0.0),
        "1 % of the batches five times as slow": (Device(law=law, slow_share=0.01), 0.0),
        "2 % of the batches fail": (Device(law=law, failing_share=0.02), 0.0),
        "a fifth of the clients hang up": (Device(law=law), 0.2),
        "the device becomes 1.3 times as slow": (Device(law=law, shift=1.3, shift_at_ns=10**10), 0.0),
        "10 % noise": (Device(law=law, noise=0.1), 0.0),
    }
    for name, (device, cancelling) in cases.items():
        stream = Stream(rate_per_ms=LOAD * SET_A.capacity_per_ms(), budget_ns=SET_A.budget_ns, cancelling=cancelling)
        workload = single(effort.count, effort.seeds[0], stream)
        run = simulate(workload, Headway(law, SET_A.max_rows), device, seed=effort.seeds[0])
        count = [run.ends.count(end) for end in (End.FAILED, End.CANCELLED)]
        dropped = run.ends.count(End.DROPPED) + run.ends.count(End.REFUSED)
        section.add(name, measure(workload, run).in_time, dropped, *count, run.started_expired, run.answered_twice)
    return section


def lanes(effort: Effort) -> Section:
    section = Section(
        "Several lanes on one queue",
        "Sustainable rate as a share of the fluid capacity of that many staggered lanes, with Poisson arrivals.",
        ["policy", *(f"{setting.name}, {count} lanes" for setting in SETS[:2] for count in (2, 4))],
    )
    table: dict[str, list[float]] = {}
    for setting in SETS[:2]:
        for count in (2, 4):
            for name, make in (
                ("greedy, no drop", greedy(setting)),
                ("Headway", lambda: Headway(setting.law, setting.max_rows, lanes=count)),  # noqa: B023
            ):
                load = sustainable_load(
                    setting,
                    make,
                    poisson,
                    count=effort.count,
                    seeds=effort.seeds[:1],
                    steps=effort.steps - 1,
                    lanes=count,
                )
                table.setdefault(name, []).append(load)
    for name, loads in table.items():
        section.add(name, *loads)
    return section


def _after(effort: Effort, setting: Setting, load: float, device: Device) -> tuple[Headway, int]:
    policy = Headway(setting.law, setting.max_rows)
    stream = Stream(rate_per_ms=load * setting.capacity_per_ms(), budget_ns=setting.budget_ns)
    count = max(2 * effort.count, WORTH_JUDGING * setting.best_rows())
    run = simulate(single(count, effort.seeds[0], stream), policy, device, seed=effort.seeds[0])
    return policy, run.batches


def _error_after_shift(policy: Headway, setting: Setting) -> float:
    rng = Random("shift")
    latency, best = policy.batcher.latency, setting.best_rows()
    for _ in range(30):
        rows = max(1, int(best * rng.uniform(0.5, 1.5)))
        latency.observe(rows, 1, int(2 * setting.law.mean_ns(rows) * rng.lognormvariate(0.0, 0.02)))
    return abs(latency.predict_ns(best) / (2 * setting.law.mean_ns(best)) - 1)
