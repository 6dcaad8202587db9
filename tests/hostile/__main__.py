"""Sends hostile inputs of every kind to a live server beside well-behaved clients: `make hostile`.

    python -m tests.hostile [--only KIND] [--json] [--alone] [--mib N]

After each kind, the same replicas and front must run, each with at most a tenth more memory than before the first
kind; their event loops must never have been blocked by more than 100 ms of their own CPU time; and each other client
must have got the right answers within ten seconds. Exit code 1 otherwise. Takes about six minutes.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from tests.hostile import artefacts, bodies, frames, heads, messages, pictures, settings, tensors, texts
from tests.hostile.bystanders import Bystanders
from tests.hostile.inputs import MIB
from tests.hostile.places import Alone, Served
from tests.hostile.runner import Report, Say, run_files, run_kind
from tests.hostile.warmup import warmed

SENT = {module.KIND: module.corpus for module in (heads, frames, tensors, messages, pictures, texts, bodies)}
LOADED = {module.KIND: module.corpus for module in (settings, artefacts)}
ALONE_MIB = 2  # the largest message of a server in one process


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.partition("\n")[0])
    kinds = [*SENT, *LOADED]
    parser.add_argument("--only", action="append", choices=kinds, help="this kind, and others named so; else all")
    parser.add_argument("--alone", action="store_true", help="servers in one process without Ray: up within seconds")
    parser.add_argument("--mib", type=int, default=16, help="size of what is large, below the server's 64 (16)")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON, progress on stderr")
    parser.add_argument("--verbose", action="store_true", help="print every input with its answer")
    return parser.parse_args(arguments)


def run(chosen: argparse.Namespace, say: Say) -> list[Report]:
    kinds = chosen.only or [*SENT, *LOADED]
    reports: list[Report] = []
    sent = {kind: corpus for kind, corpus in SENT.items() if kind in kinds}
    if sent:
        size = min(chosen.mib, ALONE_MIB if chosen.alone else 60) * MIB
        place: Callable[[Say], Any] = Alone if chosen.alone else Served
        with place(say) as running, Bystanders(running.doors) as bystanders:
            at_rest = warmed(running, bystanders, size, say)
            for kind, corpus in sent.items():
                reports.append(_printed(run_kind(kind, corpus(size), running, bystanders, at_rest, say), chosen, say))
    for kind, corpus in LOADED.items():
        if kind in kinds:
            reports.append(_printed(run_files(kind, corpus(0), say), chosen, say))
    return reports


def _printed(report: Report, chosen: argparse.Namespace, say: Say) -> Report:
    if chosen.verbose:
        for one in report.inputs:
            say(f"  {report.kind}: {one.name}: {one.answer.what} in {one.seconds:.2f} s, {one.own_stall_ms:.0f} ms")
    failures = len(report.all_failures())
    say(f"{report.kind}: {len(report.inputs)} inputs in {report.seconds:.0f} s, {failures or 'no'} failures")
    if report.memory_mib:
        longest = max(report.inputs, key=lambda one: one.own_stall_ms)
        say(
            f"  longest stall of a loop {longest.own_stall_ms:.0f} ms ({longest.name}), without inputs "
            f"{report.baseline_own_stall_ms:.0f} ms ({report.baseline_stall_ms:.0f} ms with the machine's other work)"
        )
        for name, memory in report.memory_mib.items():
            say(f"  memory of {name}: " + ", ".join(f"{when} {mib:.0f} MiB" for when, mib in memory.items()))
        seen = report.bystanders
        say(
            f"  bystanders: {seen.right.total()} answers right, {seen.wrong.total()} not, "
            f"slowest {seen.slowest_s:.2f} s"
        )
    for failure in report.failures:
        say(f"  FAILED: {failure}")
    return report


def main(arguments: Sequence[str]) -> int:
    chosen = options(arguments)
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(
            f"{time.monotonic() - began_s:6.1f} s  {text}", file=sys.stderr if chosen.json else sys.stdout, flush=True
        )

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the server ends with it
    reports = run(chosen, say)
    failures = [f"{report.kind}: {failure}" for report in reports for failure in report.all_failures()]
    say(f"{sum(len(report.inputs) for report in reports)} inputs, {len(failures)} failures")
    if chosen.json:
        print(json.dumps({"failures": failures, "kinds": [asdict(report) for report in reports]}, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
