"""Drives one contestant through works and situations: starts it, loads it, reads who spent what, stops it."""

import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.arena.case import SITUATIONS, Case
from benchmarks.arena.catalog import Contestant
from benchmarks.arena.scenarios import CONTENT_TYPES, as_json, scenario_of, wire_of
from benchmarks.arena.servers.work import OBJECTIVE_MS
from benchmarks.peers import accounting
from benchmarks.peers.request import ROW
from benchmarks.peers.running import Running, post, running
from loadtest.load import Load
from loadtest.result import take
from loadtest.wires import NoMetadata

USERS = 64
_WARM_UP_S = 1.0
# Of what Headway does at saturation. Common to all, so that they are asked the same.
SHARES = {"low": 0.2, "overload": 2.0, "bursty": 0.6}
BURSTS = "bursts(peak=4, duty=0.2, period=1)"
_PHOTOGRAPH = Path(__file__).parents[2] / "loadtest" / "samples" / "flower.jpg"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`capacity`: requests per second that Headway does, by work; what is missing is measured on the way."""

    works: Sequence[str]
    situations: Sequence[str]
    seconds: float
    seed: int = 0


def one_round(contestant: Contestant, plan: Plan, capacity: dict[str, float], logs: Path, say: Say) -> list[Case]:
    """Raises DidNotStart. A case that cannot be loaded is told and left out. Fills `capacity` where it is missing."""
    log = logs / f"{contestant.name}.log"
    with running(contestant.command, contestant.environment, contestant.folder, log) as server:
        for work in plan.works:
            server.wait_until(partial(_answers, contestant, work), contestant.start_limit_s)
        cases = []
        for work in plan.works:
            saturating = load_of(contestant, work, "saturation", plan, {})
            take(replace(saturating, seconds=_WARM_UP_S))
            if work not in capacity:
                capacity[work] = max(1.0, take(saturating)[0].summary.throughput_per_s)
                say(f"  {work}: {capacity[work]:.0f}/s at saturation is what the rates are taken from")
            for situation in (each for each in SITUATIONS if each in plan.situations):
                try:
                    cases.append(_case(server, contestant, work, situation, plan, capacity, say))
                except (NoMetadata, ValueError) as error:
                    say(f"  {contestant.name} {work} {situation}: left out: {error}")
        return cases


def load_of(contestant: Contestant, work: str, situation: str, plan: Plan, capacity: Mapping[str, float]) -> Load:
    common = Load(
        url=contestant.url(work),
        scenario=scenario_of(work, contestant.form),
        wire=wire_of(contestant.form),
        users=USERS,
        seconds=plan.seconds,
        within_ms=OBJECTIVE_MS[work],
        in_flight=4000,
        timeout_s=5.0,
        seed=plan.seed,
    )
    if situation == "saturation":
        return common
    arrivals = BURSTS if situation == "bursty" else "poisson"
    return replace(common, users=0, rate=SHARES[situation] * capacity[work], arrivals=arrivals)


def _case(
    server: Running, contestant: Contestant, work: str, situation: str, plan: Plan, capacity: Mapping[str, float],
    say: Say,
) -> Case:  # fmt: skip
    before, busy_before = server.members(), accounting.busy_seconds()
    run, shots = take(load_of(contestant, work, situation, plan, capacity))
    after, busy_after = server.members(), accounting.busy_seconds()
    summary = run.summary
    cpu_s = sum(accounting.spent(before, after).values())
    seconds = max(summary.duration_s, plan.seconds)
    generator_s = summary.generator_share * seconds
    case = Case(
        contestant=contestant.name,
        work=work,
        situation=situation,
        planned_per_s=len(shots) / seconds,
        throughput_per_s=summary.answered / seconds,
        goodput_per_s=summary.in_time / seconds,
        p50_ms=summary.from_planned_ms.get("p50", 0.0),
        p99_ms=summary.from_planned_ms.get("p99", 0.0),
        cpu_us=cpu_s * 1e6 / summary.answered if summary.answered else 0.0,
        memory_mib=sum(memory_mib(pid) for pid in after),
        others_cores=max(0.0, busy_after - busy_before - cpu_s - generator_s) / seconds,
        is_generator_limit=summary.is_generator_limit,
    )
    say(
        f"  {contestant.name:12}{work:12}{situation:11} {case.planned_per_s:7.0f}/s asked {case.throughput_per_s:7.0f} "
        f"answered {case.goodput_per_s:7.0f} in time, p99 {case.p99_ms:8.1f} ms, {case.cpu_us:7.0f} µs CPU"
        + (" (generator late)" if case.is_generator_limit else "")
    )
    for error, count in list(summary.errors.items())[:2]:
        say(f"      {count} times: {error[:100]}")
    return case


def memory_mib(pid: int) -> float:
    """The process's proportional share of memory (shared pages divided among those who share); 0 where it is gone."""
    try:
        return parse_pss_mib(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return 0.0


def parse_pss_mib(text: str) -> float:
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def _answers(contestant: Contestant, work: str) -> bool:
    if contestant.form == "oip":
        return is_ready(f"{contestant.url(work)}/ready")
    body = {"sentences": b"The train leaves at noon.", "photographs": _PHOTOGRAPH.read_bytes()}.get(work, ROW)
    sent = as_json(work, body) if contestant.form == "json" else body
    headers = {"Content-Type": CONTENT_TYPES[contestant.form]}
    return post(contestant.url(work), sent, headers)[0] == 200


def is_ready(url: str) -> bool:
    """Whether the protocol's question for readiness is answered with yes."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
