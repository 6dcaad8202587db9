"""Measures how long `headway serve` takes until ready, and the CPU time of its processes while no request comes.

    python -m benchmarks.at_rest                     # the four models of the arena
    python -m benchmarks.at_rest demo.yaml --rounds 3
    python -m benchmarks.at_rest --models 12         # as many no-op models

Needs Linux. Nothing else should run on the machine: the share of other processes is printed.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import yaml

from benchmarks.arena.measure import memory_mib
from benchmarks.peers.accounting import Process, busy_seconds, spent
from benchmarks.peers.environment import clean
from benchmarks.peers.running import DidNotStart, Running, running

ARENA = Path("benchmarks/arena/headway.yaml")
FOLDER = Path(".headway/at_rest")
START_LIMIT_S = 180.0
LOOK_S = 0.1
READY = "Headway is ready"
INPUT = {"name": "x", "datatype": "FP32", "shape": [-1, 1024]}
OUTPUT = {"name": "y", "datatype": "FP32", "shape": [-1, 1]}


@dataclass(slots=True)
class Start:
    """The parts of a start: seconds since the command, by printed line and by label of a process when first seen."""

    lines: dict[str, float] = field(default_factory=dict)
    processes: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    ready_s: float = 0.0


def main() -> None:
    options = _options()
    config = _generated(options.models) if options.models else options.config
    ready_s, rests = [], []
    for _ in range(options.rounds):
        command = [str(Path(sys.executable).with_name("headway")), "serve", str(config.resolve())]
        with running(command, environment(), Path.cwd(), FOLDER / "server.log") as server:
            start = watch(server)
            _print_start(start)
            ready_s.append(start.ready_s)
            time.sleep(options.calm)
            rests.append(rest(server, options.seconds))
            _print_rest(server, rests[-1])
    totals = [100 * sum(shares.values()) for shares in rests]
    print(f"median of {options.rounds}: ready after {median(ready_s):.1f} s, at rest {median(totals):.1f} % of a core")


def watch(server: Running) -> Start:
    """Watches the start until the server is ready. Raises DidNotStart."""
    began_s = time.monotonic()
    start = Start()
    while True:
        members = server.members()
        now_s = time.monotonic() - began_s
        for process in members.values():
            start.processes.setdefault(process.label, now_s)
        for line in server.log_tail(100_000).splitlines():
            start.lines.setdefault(line.strip(), now_s)
        if any(line.startswith(READY) for line in start.lines):
            start.cpu_s = spent({}, members)
            start.ready_s = now_s
            return start
        if not members or now_s > START_LIMIT_S:
            raise DidNotStart(server.log_tail())
        time.sleep(LOOK_S)


def rest(server: Running, seconds: float) -> dict[str, float]:
    """Returns the share of a core that each process takes, by label; `(others)` are the machine's other processes."""
    before, busy_before, began_s = server.members(), busy_seconds(), time.monotonic()
    time.sleep(seconds)
    after, busy_after, took_s = server.members(), busy_seconds(), time.monotonic() - began_s
    others = busy_after - busy_before - sum(spent(before, after).values())
    print(f"  other processes of the machine: {100 * others / took_s:.1f} % of a core")
    return shares(before, after, took_s)


def shares(before: Mapping[int, Process], after: Mapping[int, Process], took_s: float) -> dict[str, float]:
    return {label: cpu_s / took_s for label, cpu_s in spent(before, after).items()}


def _print_start(start: Start) -> None:
    print(f"ready after {start.ready_s:.1f} s, {sum(start.cpu_s.values()):.1f} s of CPU")
    events = [*start.lines.items(), *((f"process {label}", at_s) for label, at_s in start.processes.items())]
    for text, at_s in sorted(events, key=lambda event: event[1]):
        label = text.removeprefix("process ")
        cpu = f"   {start.cpu_s[label]:5.2f} s of CPU" if label in start.cpu_s else ""
        print(f"  {at_s:6.1f} s  {text[:70]:70}{cpu}")


def _print_rest(server: Running, found: Mapping[str, float]) -> None:
    count: dict[str, int] = {}
    for process in server.members().values():
        count[process.label] = count.get(process.label, 0) + 1
    memory = sum(memory_mib(pid) for pid in server.members())
    print(f"at rest {100 * sum(found.values()):.1f} % of a core, {memory:.0f} MiB")
    for label, share in sorted(found.items(), key=lambda item: -item[1]):
        print(f"  {100 * share:6.2f} %  {label} ({count.get(label, 0)})")


def environment() -> dict[str, str]:
    """Returns the environment of the server: like a user's, so Python may keep what it has compiled."""
    kept = clean() | {"PYTHONUNBUFFERED": "1"} | {n: v for n, v in os.environ.items() if n.startswith("RAY_")}
    return {name: value for name, value in kept.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _generated(models: int) -> Path:
    """Writes settings with this many no-op models; returns their path."""
    common = {"factory": "models.reference:noop", "inputs": [INPUT], "outputs": [OUTPUT], "resources": {"cpus": 0}}
    settings = {"server": {"http_port": 8590}, "models": [{"name": f"noop{n}", **common} for n in range(models)]}
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "generated.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=ARENA, help="the settings to serve")
    parser.add_argument("--models", type=int, default=0, help="serve this many no-op models instead")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--calm", type=float, default=15.0, help="seconds to wait after the start")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds to measure at rest")
    return parser.parse_args()


if __name__ == "__main__":
    main()
