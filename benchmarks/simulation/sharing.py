"""Several tenants, budgets and lengths on one device."""

from statistics import fmean

from benchmarks.simulation.effort import Effort
from benchmarks.simulation.executor import Run, simulate
from benchmarks.simulation.field import greedy
from benchmarks.simulation.headway import Headway
from benchmarks.simulation.laws import SET_A, SET_C, SETS, Affine, Device, Setting
from benchmarks.simulation.measures import Measures, jain, measure
from benchmarks.simulation.policy import Policy
from benchmarks.simulation.report import Section
from benchmarks.simulation.workload import Stream, Workload, bert_lengths, mixed, single

VICTIMS = tuple(f"victim {number}" for number in range(1, 8))
AGGRESSOR = "aggressor"
BERT = Affine(0.004, 2.0)  # ms per token and per batch
BERT_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128)
ROW_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def fairness(effort: Effort) -> Section:
    section = Section(
        "Fairness",
        "Victims: 7 tenants that together ask for 0.2 of the capacity; the aggressor alone asks for ten times its fair "
        "share of an eighth, so the device is overloaded. p99 in ms and share in time of the victims, alone and beside "
        "the aggressor. Backlogged: 4 tenants, each asking for half the capacity or more, the last for twice as much; "
        "weighted: with weights 1, 1, 2, 4.",
        ["policy, set", "victims alone", "beside the aggressor", "victims in time", "ratio of p99"],
    )
    for setting in (SET_A, SET_C):
        alone = _victims(setting, aggressor=0.0)
        beside = _victims(setting, aggressor=10 / 8)
        for name, make in (("greedy, no drop", greedy(setting)), ("Headway", lambda: _headway(setting))):  # noqa: B023
            before = _measured(effort, setting, alone, make())[0]
            after, run, workload = _measured(effort, setting, beside, make())
            p99_alone = before.p99_ms
            victims = [measure(workload, run, tenant) for tenant in VICTIMS]
            p99 = max(one.p99_ms for one in victims)
            in_time = fmean(one.in_time for one in victims)
            section.add(f"{name}, {setting.name}", p99_alone, p99, in_time, p99 / p99_alone)
            if name == "Headway":
                section.target(
                    f"victim p99 beside a tenfold aggressor over alone, set {setting.name}",
                    1.3,
                    p99 / p99_alone,
                    at_most=True,
                )
        for weights in ({}, {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0}):
            index, gap = _backlogged(effort, setting, weights)
            kind = "weighted" if weights else "equal"
            section.add(f"backlogged, {kind}, {setting.name}", f"Jain {index:.4f}", f"gap {gap:.2f} batches", "", "")
            section.target(f"Jain of backlogged tenants, {kind}, set {setting.name}", 0.98, index)
            if not weights:
                section.target(f"largest service gap in batches, set {setting.name}", 2.0, gap, at_most=True)
    return section


def budgets(effort: Effort) -> Section:
    section = Section(
        "Two budgets in one queue",
        "Half of the requests have the budget D, half 4 D. Share in time: tight / loose.",
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
        f"Useful share of what the device computes. Fixed shape: set C with batches padded to the ladder {ROW_LADDER}. "
        f"Texts: log-normal lengths, buckets {BERT_LENGTHS}, {BERT.alpha_ms} ms per token and {BERT.beta_ms} ms per "
        "batch, budget 60 ms.",
        ["case", *(f"load {load:g}" for load in (0.3, 0.6, 0.9, 1.2))],
    )
    for name, lengths, wanted in (("fixed shape", False, 0.90), ("text lengths", True, 0.85)):
        shares, in_time = [], []
        for load in (0.3, 0.6, 0.9, 1.2):
            measures = _padded(effort, load, texts=lengths)
            shares.append(measures.useful)
            in_time.append(measures.in_time)
        section.add(f"{name}: useful", *shares)
        section.add(f"{name}: in time", *in_time)
        section.target(f"useful share of computed cells at load 0.9, {name}", wanted, shares[2])
    return section


def _padded(effort: Effort, load: float, *, texts: bool) -> Measures:
    if texts:
        mean_length = 33.0
        rate = load / (BERT.alpha_ms * mean_length) * (1 - 2 * BERT.beta_ms / 60.0)
        stream = Stream(rate_per_ms=rate, budget_ns=60_000_000, lengths=bert_lengths)
        policy = Headway(BERT, 64, lengths=BERT_LENGTHS)
        law = BERT
    else:
        law = SET_C.law
        stream = Stream(rate_per_ms=load * SET_C.capacity_per_ms(), budget_ns=SET_C.budget_ns)
        policy = Headway(law, 64, row_ladder=ROW_LADDER)
    workload = single(effort.count, effort.seeds[0], stream)
    return measure(workload, simulate(workload, policy, Device(law=law), seed=effort.seeds[0]))


def _headway(setting: Setting, weights: dict[str, float] | None = None) -> Headway:
    return Headway(setting.law, setting.max_rows, weights=weights)


def _victims(setting: Setting, aggressor: float) -> list[Stream]:
    capacity = setting.capacity_per_ms()
    streams = [
        Stream(rate_per_ms=0.2 * capacity / len(VICTIMS), budget_ns=setting.budget_ns, tenant=tenant)
        for tenant in VICTIMS
    ]
    if aggressor:
        streams.append(Stream(rate_per_ms=aggressor * capacity, budget_ns=setting.budget_ns, tenant=AGGRESSOR))
    return streams


def _measured(
    effort: Effort, setting: Setting, streams: list[Stream], policy: Policy
) -> tuple[Measures, Run, Workload]:
    workload = mixed(effort.count, effort.seeds[0], streams)
    run = simulate(workload, policy, Device(law=setting.law), seed=effort.seeds[0])
    return measure(workload, run), run, workload


def _backlogged(effort: Effort, setting: Setting, weights: dict[str, float]) -> tuple[float, float]:
    """(Jain of device time per weight, largest difference of it between two tenants in full batches)."""
    capacity = setting.capacity_per_ms()
    streams = [
        Stream(rate_per_ms=factor * capacity, budget_ns=setting.budget_ns, tenant=tenant)
        for tenant, factor in (("a", 0.6), ("b", 0.6), ("c", 1.0), ("d", 2.0))
    ]
    policy = _headway(setting, weights)
    workload = mixed(effort.count, effort.seeds[0], streams)
    run = simulate(workload, policy, Device(law=setting.law), seed=effort.seeds[0])
    served = [run.device_ns[tenant] / weights.get(tenant, 1.0) for tenant in "abcd"]
    full_batch_ns = setting.law.mean_ns(round(run.rows / run.batches))
    return jain(served), (max(served) - min(served)) / full_batch_ns


def _in_time_by_budget(workload: Workload, run: Run, budget_ns: int) -> float:
    requests = [one for one in workload.requests if one.deadline_ns - one.arrived_ns == budget_ns]
    good = sum(run.ends[one.id] == 1 and run.finished_ns[one.id] <= one.deadline_ns for one in requests)
    return good / len(requests)
