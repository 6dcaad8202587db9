"""Formats the arena's results in Markdown: conditions, a table per work, and where Headway loses. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.arena.case import SHARES, Case, Rest, find, kept, losses, missed_goals
from benchmarks.arena.servers.work import OBJECTIVE_MS
from benchmarks.peers.report import grid

_WORKS = {
    "noop": "No-op, 4 KB in: only the server's own cost",
    "mlp": "MLP, 1024 wide, 6 hidden layers: batching pays",
    "sentences": "MiniLM, sentences of mixed lengths",
    "photographs": "EfficientNet-Lite0, from the bytes of a JPEG",
}
_DISTURBED_CORES = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """The results and the conditions of the run. `capacity`: requests per second that count as full load; all rates are
    shares of it. `missing`: the reason, by contestant."""

    cases: Sequence[Case]
    rests: Sequence[Rest]
    titles: dict[str, str]
    python: Sequence[str]
    capacity: Mapping[str, float]
    missing: Mapping[str, str]
    seconds: float
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str
    command: str
    date: str


def markdown(arena: Arena, picture: str) -> str:
    parts = ["# The arena: Headway and other servers", _circumstances(arena), f"![goodput in every case]({picture})"]
    for work in dict.fromkeys(case.work for case in arena.cases):
        parts += [f"## {_WORKS[work]}", _rates(arena, work), _table(arena, work)]
    if arena.rests:
        parts += ["## Without a request", "All four works loaded.", _at_rest(arena)]
    goals = missed_goals(arena.cases, arena.python)
    parts += ["## Goals that were missed", _list(goals or ["None."])]
    parts += ["## Where Headway loses", _list(losses(arena.cases, arena.titles) or ["Nowhere by more than 5 %."])]
    if arena.missing:
        parts += ["## Not measured", _list([f"{arena.titles[name]}: {why}" for name, why in arena.missing.items()])]
    return "\n\n".join(parts) + "\n"


def _circumstances(arena: Arena) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in {**arena.machine, **arena.versions}.items())
    rounds = max((case.rounds for case in arena.cases), default=0)
    objectives = ", ".join(f"{work} {value} ms" for work, value in OBJECTIVE_MS.items())
    said = (
        f"{arena.date}, commit {arena.commit}. {facts}.\n\n    {arena.command}\n\n"
        f"Rounds: {rounds}, interleaved, with medians shown; {arena.seconds:g} s per case. Goodput counts answers "
        f"within the objective, measured from the request's planned instant: {objectives}. The objective is configured "
        "in servers that have such a setting. All servers compute the same models on one torch thread, with their own "
        f"batching up to 64 rows. Servers, load generator and disturbing processes have the same priority."
    )
    disturbed = [case for case in arena.cases if case.others_cores > _DISTURBED_CORES and case.situation != "disturbed"]
    late = [case for case in arena.cases if case.is_generator_limit]
    if disturbed:
        worst = max(case.others_cores for case in disturbed)
        share = f"{len(disturbed)} of {len(arena.cases)}"
        said += f"\n\n**Disturbed:** in {share} cases other processes used up to {worst:.1f} of a core."
    if late:
        said += (
            f"\n\n**Generator:** in {len(late)} of {len(arena.cases)} cases, marked ¹, the load generator, which "
            "shares the server's cores, sent late: the measured latency is too high and the goodput too low."
        )
    return said


def _rates(arena: Arena, work: str) -> str:
    capacity = arena.capacity.get(work, 0.0)
    rates = {name: f"{share * capacity:.0f}/s" for name, share in SHARES.items()}
    return (
        f"Low: {rates['low']}. Saturation: 64 users in a closed loop. Overload: {rates['overload']}, about twice what "
        f"a server can do. Bursty: {rates['bursty']} on average, four times that for 0.2 s of each second. "
        "Twice its own: twice the throughput that the server reached at saturation; in brackets its goodput as a "
        f"share of that throughput. Disturbed: {rates['disturbed']} beside a busy process per core."
    )


def _table(arena: Arena, work: str) -> str:
    head = [
        "server",
        "CPU µs/request",
        "× Headway",
        "saturation/s",
        "× Headway",
        "goodput/s, overload",
        "goodput/s, bursty",
        "twice its own",
        "disturbed",
    ]
    head += ["low p50 / p99 ms", "bursty p50 / p99 ms", "MiB"]
    lines = []
    for name, title in arena.titles.items():
        low, full, over, bursty, double, disturbed = (
            find(arena.cases, work, each, name)
            for each in ("low", "saturation", "overload", "bursty", "double", "disturbed")
        )
        if not any((low, full, over, bursty, double, disturbed)):
            continue
        base = find(arena.cases, work, "saturation", "headway")
        lines.append(
            [
                title,
                _cell(full, "cpu_us"),
                _ratio(full, base, "cpu_us"),
                _cell(full, "throughput_per_s"),
                _ratio(full, base, "throughput_per_s"),
                _cell(over, "goodput_per_s"),
                _cell(bursty, "goodput_per_s"),
                _cell(double, "goodput_per_s") + _share(kept(arena.cases, work, name)),
                _cell(disturbed, "goodput_per_s"),
                _latency(low),
                _latency(bursty),
                _cell(full or low or over or bursty or double or disturbed, "memory_mib"),
            ]
        )
    return grid(head, lines)


def _cell(case: Case | None, field: str) -> str:
    if case is None:
        return "–"
    value = getattr(case, field)
    mark = "¹" if case.is_generator_limit and field == "goodput_per_s" else ""
    return f"{value:,.0f}{mark}"


def _share(share: float | None) -> str:
    return "" if share is None else f" ({share:.2f})"


def _at_rest(arena: Arena) -> str:
    head = ["server", "seconds to ready", "CPU, % of a core", "MiB"]
    lines = [
        [arena.titles[rest.contestant], f"{rest.ready_s:.1f}", f"{100 * rest.cores:.1f}", f"{rest.memory_mib:,.0f}"]
        for rest in arena.rests
    ]
    return grid(head, lines)


def _ratio(case: Case | None, base: Case | None, field: str) -> str:
    if case is None or base is None or not getattr(base, field) or not getattr(case, field):
        return ""
    return f"{getattr(case, field) / getattr(base, field):.2f}×"


def _latency(case: Case | None) -> str:
    if case is None or not case.p99_ms:
        return "–"
    return f"{case.p50_ms:.1f} / {case.p99_ms:.1f}{'¹' if case.is_generator_limit else ''}"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def as_json(arena: Arena) -> dict[str, object]:
    goals = missed_goals(arena.cases, arena.python)
    return {**asdict(arena), "missed_goals": goals, "losses": losses(arena.cases, arena.titles)}
