"""`python -m benchmarks.arena`: measures Headway and all peers under the same load; writes one table and one chart."""

import argparse
import datetime
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.arena.case import SITUATIONS, Case, Rest, capacity, draw_together, rests_together
from benchmarks.arena.catalog import ROOT, Contestant, contestants, environment, write_triton_repository
from benchmarks.arena.measure import Plan, offline, one_round
from benchmarks.arena.picture import picture
from benchmarks.arena.report import Arena, as_json, markdown
from benchmarks.arena.servers.work import WORKS
from benchmarks.peers.machine import commit, machine
from benchmarks.peers.running import DidNotStart
from loadtest.fleet import GeneratorFailed

NAMES = ("headway", "triton", "mosec", "litserve", "bentoml", "ray", "ray-haproxy", "ray-tuned")


def say(line: str) -> None:
    print(line, flush=True)


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arena",
        description=f"{__doc__} Creates a separate environment for the peers (about 2 GB, once). Two rounds take about "
        "forty-five minutes; no server is started after --minutes.",
    )
    parser.add_argument("--peers", default=",".join(NAMES), help="comma-separated, of: %(default)s")
    parser.add_argument("--works", default=",".join(WORKS), help="of: %(default)s")
    parser.add_argument("--situations", default=",".join(SITUATIONS), help="of: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load per case (default 3)")
    parser.add_argument("--rounds", type=int, default=2, help="each starts every server again (default 2)")
    parser.add_argument("--minutes", type=float, default=50.0, help="no server is started after that (default 50)")
    parser.add_argument("--environment", type=Path, default=ROOT / ".headway" / "arena", help="the peers' own Python")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of arena.*")
    arguments = parser.parse_args(words)
    for option, known in (("peers", NAMES), ("works", WORKS), ("situations", SITUATIONS)):
        chosen = getattr(arguments, option).split(",")
        if unknown := set(chosen) - set(known):
            parser.error(f"--{option}: no such name: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
        setattr(arguments, option, chosen)
    if arguments.seconds < 1 or arguments.rounds < 1:
        parser.error("--seconds and --rounds: at least 1")
    return arguments


def main(words: Sequence[str]) -> int:
    arguments = read_arguments(words)
    peers = environment(arguments.environment)
    peers.ensure(say)
    # Ray's sockets are in this folder, and their paths may have at most 107 characters.
    scratch = Path(tempfile.mkdtemp(prefix="hw"))
    try:
        write_triton_repository(scratch / "triton")
        taking_part = [each for each in contestants(peers, scratch) if each.name in arguments.peers]
        full = capacity(offline(peers, arguments.works))
        say("full load: " + ", ".join(f"{work} {rate:.0f}/s" for work, rate in full.items()))
        cases, rests, missing = _rounds(taking_part, full, arguments)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not cases:
        say("nothing was measured")
        return 1
    arena = Arena(
        cases=draw_together(cases),
        rests=rests_together(rests),
        titles={each.name: each.title for each in taking_part},
        python=[each.name for each in taking_part if each.is_python],
        capacity=full,
        missing=missing,
        seconds=arguments.seconds,
        machine=machine(),
        versions=peers.versions(),
        commit=commit(ROOT),
        command=shlex.join(["python", "-m", "benchmarks.arena", *words]),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    _write(arena, arguments.output)
    return 0


def _rounds(
    taking_part: Sequence[Contestant], full: Mapping[str, float], arguments: argparse.Namespace
) -> tuple[list[Case], list[Rest], dict[str, str]]:
    """Runs the rounds. A contestant that fails is left out of later rounds and keeps its results. Returns the cases,
    the contestants at rest, and the reasons of failure by contestant."""
    cases: list[Case] = []
    rests: list[Rest] = []
    missing: dict[str, str] = {}
    end_s = time.monotonic() + arguments.minutes * 60
    for number in range(1, arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}")
        for contestant in taking_part:
            if contestant.name in missing:
                continue
            if time.monotonic() > end_s:
                say(f"  {arguments.minutes:g} minutes are over: {contestant.name} and all later servers are left out")
                return cases, rests, missing
            plan = Plan(
                capacity=full,
                works=arguments.works,
                situations=arguments.situations,
                seconds=arguments.seconds,
                seed=number,
            )
            try:
                measured, rest = one_round(contestant, plan, arguments.environment / "logs", say)
                cases += measured
                rests.append(rest)
            except (DidNotStart, GeneratorFailed, OSError) as error:
                missing[contestant.name] = f"left out in round {number}: {str(error).splitlines()[0]}"
                say(f"  {contestant.name}: left out: {error}")
    return cases, rests, missing


def _write(arena: Arena, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(arena, "arena.svg")
    (folder / "arena.md").write_text(text)
    (folder / "arena.svg").write_text(picture(arena.cases, arena.titles))
    (folder / "arena.json").write_text(json.dumps(as_json(arena), indent=2, ensure_ascii=False) + "\n")
    say("\n" + text)
    say(f"written: {folder}/arena.md, .svg and .json")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
