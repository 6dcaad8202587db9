"""Measures one contestant with all works and situations: starts it, puts load on it, reads CPU times, stops it."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.arena.case import OWN_SHARES, SHARES, SITUATIONS, Case, Rest
from benchmarks.arena.catalog import MODELS, SERVERS, Contestant
from benchmarks.arena.scenarios import CONTENT_TYPES, as_json, scenario_of, wire_of
from benchmarks.arena.servers.work import OBJECTIVE_MS, WORKS
from benchmarks.disturbed.trouble import neighbours
from benchmarks.peers import accounting
from benchmarks.peers.environment import Environment, clean
from benchmarks.peers.request import ROW
from benchmarks.peers.running import Running, post, running
from loadtest.load import Load
from loadtest.result import take
from loadtest.wires import NoMetadata

USERS = 64
IN_FLIGHT = 1024  # the most connections; a shot without one is not sent, and not in time
_WARM_UP_S = 1.0
_CALM_S, _IDLE_S = 3.0, 4.0  # after the start, and then without a request
BURSTS = "bursts(peak=4, duty=0.2, period=1)"
_PHOTOGRAPH = Path(__file__).parents[2] / "loadtest" / "samples" / "flower.jpg"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cases to measure. `capacity`: requests per second that count as full load, by work."""

    capacity: Mapping[str, float]
    works: Sequence[str]
    situations: Sequence[str]
    seconds: float
    seed: int = 0


def offline(environment: Environment, works: Sequence[str]) -> dict[str, float]:
    """Measures the rows per second of each work without a server."""
    command = [str(environment.python), str(SERVERS / "offline.py"), *works]
    ran = subprocess.run(command, env={**clean(), "PYTHONPATH": MODELS}, capture_output=True, text=True, check=True)
    rates: dict[str, float] = json.loads(ran.stdout)
    return rates


def one_round(contestant: Contestant, plan: Plan, logs: Path, say: Say) -> tuple[list[Case], Rest]:
    """Measures one contestant: all cases, and without a request. Raises DidNotStart. A case that cannot be measured is
    reported and left out."""
    log = logs / f"{contestant.name}.log"
    with running(contestant.command, contestant.environment, contestant.folder, log, port=contestant.port) as server:
        began_s = time.monotonic()
        for work in WORKS:  # a server that still loads works that are not measured is neither ready nor at rest
            server.wait_until(partial(_answers, contestant, work), contestant.start_limit_s)
        rest = _rest(server, contestant, time.monotonic() - began_s, say)
        cases: list[Case] = []
        for work in plan.works:
            take(replace(load_of(contestant, work, "saturation", plan), seconds=_WARM_UP_S))
            own_per_s = 0.0
            for situation in (each for each in SITUATIONS if each in plan.situations):
                try:
                    load = load_of(contestant, work, situation, plan, own_per_s)
                    cases.append(_case(server, contestant, work, situation, load, say))
                except (NoMetadata, ValueError) as error:
                    say(f"  {contestant.name} {work} {situation}: left out: {error}")
                else:
                    own_per_s = cases[-1].throughput_per_s if situation == "saturation" else own_per_s
        return cases, rest


def _rest(server: Running, contestant: Contestant, ready_s: float, say: Say) -> Rest:
    """Measures the server without a request, all works loaded."""
    time.sleep(_CALM_S)
    before = server.members()
    time.sleep(_IDLE_S)
    after = server.members()
    rest = Rest(
        contestant=contestant.name,
        ready_s=ready_s,
        cores=sum(accounting.spent(before, after).values()) / _IDLE_S,
        memory_mib=sum(memory_mib(pid) for pid in after),
    )
    say(f"  {contestant.name:12}ready after {ready_s:.1f} s, at rest {100 * rest.cores:.1f} % of a core")
    return rest


def load_of(contestant: Contestant, work: str, situation: str, plan: Plan, own_per_s: float = 0.0) -> Load:
    """Returns the load of a case. own_per_s: what the contestant reached at saturation. Raises ValueError if a rate
    depends on it and it answered nothing, or was not saturated."""
    common = Load(
        url=contestant.url(work),
        scenario=scenario_of(work, contestant.form),
        wire=wire_of(contestant.form),
        users=USERS,
        seconds=plan.seconds,
        within_ms=OBJECTIVE_MS[work],
        in_flight=IN_FLIGHT,
        timeout_s=5.0,
        seed=plan.seed,
    )
    if situation == "saturation":
        return common
    arrivals = BURSTS if situation == "bursty" else "poisson"
    if situation in OWN_SHARES:
        if not own_per_s:
            raise ValueError("its own capacity is not known")
        return replace(common, users=0, rate=OWN_SHARES[situation] * own_per_s)
    return replace(common, users=0, rate=SHARES[situation] * plan.capacity[work], arrivals=arrivals)


def _case(server: Running, contestant: Contestant, work: str, situation: str, load: Load, say: Say) -> Case:
    before, busy_before = server.members(), accounting.busy_seconds()
    with neighbours(server) if situation == "disturbed" else nullcontext():
        run, shots = take(load)
    after, busy_after = server.members(), accounting.busy_seconds()
    summary = run.summary
    cpu_s = sum(accounting.spent(before, after).values())
    seconds = max(summary.duration_s, load.seconds)
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
        f"  {contestant.name:12}{work:12}{situation:11} {case.planned_per_s:7.0f}/s sent {case.throughput_per_s:7.0f} "
        f"answered {case.goodput_per_s:7.0f} in time, p99 {case.p99_ms:8.1f} ms, {case.cpu_us:7.0f} µs CPU"
        + (" (generator late)" if case.is_generator_limit else "")
    )
    for error, count in list(summary.errors.items())[:2]:
        say(f"      {count} times: {error[:100]}")
    return case


def memory_mib(pid: int) -> float:
    """Returns a process's proportional set size (shared pages divided among the processes that share them); 0 if it has
    ended."""
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
    """Returns whether the protocol's readiness endpoint answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
