"""Sections on several tenants, budgets and lengths on one device."""

from bisect import bisect_left
from dataclasses import dataclass
from random import Random
from statistics import fmean

from benchmarks.simulation.report import Section
from serving.testing.simulation.capacity import MakePolicy
from serving.testing.simulation.effort import Effort
from serving.testing.simulation.executor import Run, simulate
from serving.testing.simulation.field import greedy
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import SET_A, SET_C, SETS, Affine, Device, Setting
from serving.testing.simulation.measures import Measures, jain, measure
from serving.testing.simulation.policy import Policy
from serving.testing.simulation.workload import Stream, Workload, bert_lengths, mixed, single

VICTIMS = tuple(f"victim {number}" for number in range(1, 8))
AGGRESSOR = "aggressor"
BERT = Affine(0.004, 2.0)  # ms per token and per batch
COARSE_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128)
FINE_LENGTHS = (8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
PADDING_LOADS = (0.3, 0.6, 0.9, 1.2)
ROW_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def fairness(effort: Effort) -> Section:
    section = Section(
        "Fairness",
        "Eight tenants with a fair share of an eighth each. Seven of them are the victims. The eighth, the aggressor, "
        "sends ten times its fair share, so that the device is overloaded. “Alone” means without the aggressor, "
        "“beside” with it. Busy victims send 0.7 of their shares, light victims 0.2. The p99 latency is that of the "
        "worst victim, in ms, over completed requests. For light victims the ratio cannot be near 1: alone they hardly "
        "ever wait for a large batch. A request that arrives while a batch is computed joins the next batch, so two "
        "batches bound the victims' latency. On set C, a p99 of at most 1.3 times the one alone limits batches to "
        "8.5 ms; batches of that size reach 0.85 of the capacity. In an overload, Headway fills batches up to the size "
        "that reaches 0.8 of the capacity.",
        ["policy, victims, set", "p99 alone", "p99 beside", "ratio", "in time alone", "in time beside"],
    )
    for setting in (SET_A, SET_C):
        for kind, load in (("busy", 0.7), ("light", 0.2)):
            for name, make in _contenders(setting).items():
                alone = _worst_victim(effort, setting, _victims(setting, load, aggressor=0.0), make())
                beside = _worst_victim(effort, setting, _victims(setting, load, aggressor=10 / 8), make())
                ratio = beside.p99_ms / alone.p99_ms
                section.add(
                    f"{name}, {kind}, {setting.name}", alone.p99_ms, beside.p99_ms, ratio, alone.in_time, beside.in_time
                )
                if name != "Headway":
                    continue
                case = f"{kind} victims, set {setting.name}"
                if kind == "busy":
                    section.target(
                        f"worst victim's p99 beside the aggressor over alone, {case}", 1.3, ratio, at_most=True
                    )
                # The share that they had alone, minus one percent.
                wanted = round(alone.in_time - 0.01, 3)
                section.target(f"worst victim's share in time beside the aggressor, {case}", wanted, beside.in_time)
    return section


def shares(effort: Effort) -> Section:
    section = Section(
        "Shares of backlogged tenants",
        "Four tenants whose queues are never empty; no request is late. The table shows Jain's index of device time "
        "per weight over the whole run, and the largest difference in device time per weight between two tenants at "
        "any instant, in batches of the largest size that occurred. “When overloaded”: with budget D, so that most "
        "requests are dropped, and offered loads of 0.6, 0.6, 1 and 2 times the capacity.",
        ["weights, set", "Jain", "largest gap in batches", "Jain when overloaded"],
    )
    for setting in (SET_A, SET_C):
        for name, weights in (("equal", {}), ("1, 1, 2, 4", {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0})):
            index, gap = _backlogged(effort, setting, weights)
            overloaded = _overloaded(effort, setting, weights)
            section.add(f"{name}, {setting.name}", index, gap, overloaded)
            section.target(f"Jain of backlogged tenants, weights {name}, set {setting.name}", 0.98, index)
            section.target(
                f"largest service gap in batches, weights {name}, set {setting.name}", 2.0, gap, at_most=True
            )
    return section


def budgets(effort: Effort) -> Section:
    section = Section(
        "Two budgets in one queue",
        "Half of the requests have the budget D, the other half 4 D. Share of the requests in time: budget D / 4 D.",
        ["policy", *(f"{setting.name} {load:g}" for setting in SETS for load in (0.7, 0.9, 1.2, 1.6))],
    )
    table: dict[str, list[str]] = {}
    for setting in SETS:
        for load in (0.7, 0.9, 1.2, 1.6):
            rate = load * setting.capacity_per_ms()
            streams = [
                Stream(rate_per_ms=rate / 2, budget_ns=setting.budget_ns * factor, priority=2, tenant="")
                for factor in (1, 4)
            ]
            workload = mixed(effort.count, effort.seeds[0], streams)
            for name, policy in (("greedy, no drop", greedy(setting)()), ("Headway", _headway(setting))):
                run = simulate(workload, policy, Device(law=setting.law), seed=effort.seeds[0])
                cells = [_in_time_by_budget(workload, run, setting.budget_ns * factor) for factor in (1, 4)]
                table.setdefault(name, []).append(f"{cells[0]:.3f} / {cells[1]:.3f}")
    for name, row in table.items():
        section.add(name, *row)
    return section


def padding(effort: Effort) -> Section:
    section = Section(
        "Padding",
        "“Useful” is the share of the computed cells that are not padding. Fixed shape: set C, with batches padded to "
        f"the ladder {ROW_LADDER}. Texts: log-normal lengths with a mean of 33 tokens, padded to the bucket of the "
        f"batch; {BERT.alpha_ms} ms per token and {BERT.beta_ms} ms per batch, budget 60 ms. Load 1 is the rate that "
        "batches of 64 rows from a single bucket would sustain. With coarse buckets "
        f"{COARSE_LENGTHS}, at best 0.842 is useful; with fine buckets {FINE_LENGTHS}, at best 0.924.",
        ["case", *(f"load {load:g}" for load in PADDING_LOADS)],
    )
    for name, lengths, wanted in (
        ("fixed shape", (1,), 0.90),
        ("texts, coarse", COARSE_LENGTHS, None),
        ("texts, fine", FINE_LENGTHS, 0.85),
    ):
        measures = [_padded(effort, load, lengths) for load in PADDING_LOADS]
        section.add(f"{name}: useful", *(one.useful for one in measures))
        section.add(f"{name}: in time", *(one.in_time for one in measures))
        if wanted:
            section.target(f"useful share of computed cells at load 0.9, {name}", wanted, measures[-2].useful)
    return section


def _padded(effort: Effort, load: float, lengths: tuple[int, ...]) -> Measures:
    if lengths == (1,):
        law = SET_C.law
        stream = Stream(rate_per_ms=load * SET_C.capacity_per_ms(), budget_ns=SET_C.budget_ns)
        policy = Headway(law, 64, row_ladder=ROW_LADDER)
    else:
        law = BERT
        rng = Random("lengths")
        padded = fmean(lengths[bisect_left(lengths, bert_lengths(rng))] for _ in range(5_000))
        rate = load / (BERT.alpha_ms * padded + BERT.beta_ms / 64)
        stream = Stream(rate_per_ms=rate, budget_ns=60_000_000, lengths=bert_lengths)
        policy = Headway(BERT, 64, lengths=lengths)
    workload = single(effort.count, effort.seeds[0], stream)
    return measure(workload, simulate(workload, policy, Device(law=law), seed=effort.seeds[0]))


def _headway(setting: Setting, weights: dict[str, float] | None = None) -> Headway:
    return Headway(setting.law, setting.max_rows, weights=weights)


def _contenders(setting: Setting) -> dict[str, MakePolicy]:
    return {"greedy, no drop": greedy(setting), "Headway": lambda: _headway(setting)}


def _victims(setting: Setting, load: float, aggressor: float) -> list[Stream]:
    capacity = setting.capacity_per_ms()
    streams = [
        Stream(rate_per_ms=load / 8 * capacity, budget_ns=setting.budget_ns, tenant=tenant) for tenant in VICTIMS
    ]
    if aggressor:
        streams.append(Stream(rate_per_ms=aggressor * capacity, budget_ns=setting.budget_ns, tenant=AGGRESSOR))
    return streams


@dataclass(frozen=True, slots=True)
class WorstVictim:
    p99_ms: float
    in_time: float


def _worst_victim(effort: Effort, setting: Setting, streams: list[Stream], policy: Policy) -> WorstVictim:
    """Measures the worst victim. The number of the victims' requests is the same with and without the aggressor, and so
    is the seed."""
    victims = sum(stream.rate_per_ms for stream in streams if stream.tenant != AGGRESSOR)
    everyone = sum(stream.rate_per_ms for stream in streams)
    workload = mixed(round(effort.count * everyone / victims), effort.seeds[0], streams)
    run = simulate(workload, policy, Device(law=setting.law), seed=effort.seeds[0])
    each = [measure(workload, run, tenant) for tenant in VICTIMS]
    return WorstVictim(max(one.p99_ms for one in each), min(one.in_time for one in each))


def _backlogged(effort: Effort, setting: Setting, weights: dict[str, float]) -> tuple[float, float]:
    """Returns (Jain's index of device time per weight, its largest difference between two tenants, in batches)."""
    budget_ns = 10**13
    streams = [
        Stream(rate_per_ms=20 * setting.capacity_per_ms(), budget_ns=budget_ns, tenant=tenant) for tenant in "abcd"
    ]
    workload = mixed(effort.count // 2, effort.seeds[0], streams)
    policy = Headway(setting.law, setting.max_rows, weights=weights, max_requests=10**6)
    run = simulate(workload, policy, Device(law=setting.law), seed=effort.seeds[0])
    last = dict.fromkeys("abcd", 0)
    for request in workload.requests:
        last[request.tenant] = max(last[request.tenant], run.finished_ns[request.id])
    served = dict.fromkeys("abcd", 0.0)
    gap = 0.0
    for finished_ns, by_tenant in run.services:
        if finished_ns >= min(last.values()):
            break
        for tenant, device_ns in by_tenant.items():
            served[tenant] += device_ns / weights.get(tenant, 1.0)
        gap = max(gap, max(served.values()) - min(served.values()))
    return jain(served.values()), gap / setting.law.mean_ns(max(run.batch_sizes))


def _overloaded(effort: Effort, setting: Setting, weights: dict[str, float]) -> float:
    streams = [
        Stream(rate_per_ms=factor * setting.capacity_per_ms(), budget_ns=setting.budget_ns, tenant=tenant)
        for tenant, factor in (("a", 0.6), ("b", 0.6), ("c", 1.0), ("d", 2.0))
    ]
    workload = mixed(effort.count, effort.seeds[0], streams)
    run = simulate(workload, _headway(setting, weights), Device(law=setting.law), seed=effort.seeds[0])
    served = dict.fromkeys("abcd", 0.0)
    for _, by_tenant in run.services:
        for tenant, device_ns in by_tenant.items():
            served[tenant] += device_ns / weights.get(tenant, 1.0)
    return jain(served.values())


def _in_time_by_budget(workload: Workload, run: Run, budget_ns: int) -> float:
    requests = [one for one in workload.requests if one.deadline_ns - one.arrived_ns == budget_ns]
    good = sum(run.ends[one.id] == 1 and run.finished_ns[one.id] <= one.deadline_ns for one in requests)
    return good / len(requests)
