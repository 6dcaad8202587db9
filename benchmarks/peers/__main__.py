"""`python -m benchmarks.peers`: measures Headway and its peers under one load; writes docs/benchmarks/first-number.*"""

import argparse
import datetime
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import measure, report, wrk
from benchmarks.peers.accounting import processes
from benchmarks.peers.catalog import ONE_BY_ONE, ROOT, WORKS, Peer, peers
from benchmarks.peers.environment import Environment
from benchmarks.peers.machine import commit, machine
from benchmarks.peers.running import DidNotStart
from benchmarks.peers.sample import Sample, best_offline, draw_together

NAMES = ("headway", ONE_BY_ONE, "triton", "mosec", "ray", "ray-haproxy", "ray-throughput")


def say(line: str) -> None:
    print(line, flush=True)


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", choices=WORKS, help="one work instead of both")
    parser.add_argument("--peers", default=",".join(NAMES), help="comma-separated, of: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load per server, work and round (default 4)")
    parser.add_argument("--rounds", type=int, default=3, help="each starts every server anew (default 3)")
    parser.add_argument("--connections", type=int, default=wrk.CONNECTIONS, help="kept alive (default %(default)s)")
    parser.add_argument("--environment", type=Path, default=ROOT / ".headway" / "peers", help="the peers' own Python")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks", help="folder of first-number.*")
    arguments = parser.parse_args(words)
    arguments.peers = arguments.peers.split(",")
    if unknown := set(arguments.peers) - set(NAMES):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    if not shutil.which("wrk"):
        parser.error("wrk is missing; Debian and Ubuntu have it as a package of that name")
    return arguments


def main(words: Sequence[str]) -> int:
    arguments = read_arguments(words)
    works = [arguments.only] if arguments.only else list(WORKS)
    environment = Environment(arguments.environment)
    environment.ensure(say)
    if foreign := [process.label for process in processes().values() if process.label == "raylet"]:
        say(f"warning: {len(foreign)} other Ray clusters run on this machine; they affect the measurement")
    # Ray's sockets are in this folder, and their paths may have at most 107 characters.
    scratch = Path(tempfile.mkdtemp(prefix="hw"))
    try:
        taking_part = [peer for peer in peers(environment, scratch) if peer.name in arguments.peers]
        samples, offline_rounds, missing = _rounds(environment, taking_part, works, arguments)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not samples:
        say("nothing was measured")
        return 1
    offline = best_offline(offline_rounds)[0] if "mlp" in works else {}
    run = report.Run(
        rows=draw_together(samples),
        titles={peer.name: peer.title for peer in taking_part},
        offline=offline,
        connections=arguments.connections,
        missing=missing,
        machine=machine(),
        versions={**environment.versions(), "wrk": _wrk_version()},
        commit=commit(ROOT),
        command=shlex.join(["python", "-m", "benchmarks.peers", *words]),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    _write(run, arguments.output)
    return 0


def _rounds(
    environment: Environment, taking_part: Sequence[Peer], works: Sequence[str], arguments: argparse.Namespace
) -> tuple[list[Sample], list[dict[int, float]], dict[str, str]]:
    samples: list[Sample] = []
    offline_rounds: list[dict[int, float]] = []
    missing: dict[str, str] = {}
    load = measure.Load(arguments.seconds, arguments.connections)
    for number in range(1, arguments.rounds + 1):
        say(f"round {number} of {arguments.rounds}")
        measured, expected = measure.offline(environment, seconds=0.4 if "mlp" in works else 0.0)
        offline_rounds.append(measured)
        for peer in taking_part:
            if peer.name in missing or not set(works) & set(peer.urls):
                continue
            try:
                samples += measure.one_round(peer, works, load, expected, arguments.environment / "logs", say)
            except (DidNotStart, OSError, wrk.LoadFailed, subprocess.TimeoutExpired) as error:
                missing[peer.name] = f"left out in round {number}: {str(error).splitlines()[0]}"
                say(f"  {peer.name}: left out: {error}")
    return samples, offline_rounds, missing


def _write(run: report.Run, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = report.markdown(run)
    (folder / "first-number.md").write_text(text)
    (folder / "first-number.json").write_text(json.dumps(report.as_json(run), indent=2, ensure_ascii=False) + "\n")
    say("\n" + text)
    say(f"written: {folder}/first-number.md and .json")


def _wrk_version() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return said.split("[")[0].removeprefix("wrk").strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
