"""Measures the share of the device's speed that remains behind HTTP: the saturated MLP against a bare loop.

    python -m benchmarks.bench_saturation [--rounds 3] [--connections 32 64 128 256]

The bare loop only calls the model in batches of several sizes, with one torch thread. It is run twice: alone on the
machine, and beside an HTTP load on Headway's no-op model, whose clients, HAProxy and codec use as much CPU as those of
the MLP would. The second rate is what a server on this machine could reach. Needs `wrk`; writes
docs/benchmarks/saturation.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.peers import wrk
from benchmarks.peers.catalog import HEADWAY_PORT, HERE, ROOT
from benchmarks.peers.environment import clean
from benchmarks.peers.machine import commit, machine
from benchmarks.peers.measure import answers
from benchmarks.peers.request import request
from benchmarks.peers.running import Running, running

URL = f"http://127.0.0.1:{HEADWAY_PORT}/v2/models/%s/infer"
SIZES = (16, 32, 64, 128)
LOAD_S = 4.0
BESIDE_CONNECTIONS = (1, 2, 3, 4, 6, 8, 16, 32)

BARE_LOOP = """
import json, sys, time, torch
from models.mlp import MLP
torch.set_num_threads(1)
model, rates = MLP().eval(), {}
with torch.inference_mode():
    for size in map(int, sys.argv[2:]):
        rows, done = torch.full((size, 1024), 0.5), 0
        for _ in range(5):
            model(rows)
        began = time.perf_counter()
        while (took := time.perf_counter() - began) < float(sys.argv[1]):
            model(rows)
            done += size
        rates[size] = done / took
print(json.dumps(rates))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The rows per second of one round: of the bare loop by batch size, alone and beside HTTP, and of Headway by
    connections."""

    alone: dict[int, float]
    beside: dict[int, float]
    beside_per_second: float  # of the HTTP load that the bare loop ran beside
    served: dict[int, float]


def bare_loop(seconds: float) -> dict[int, float]:
    command = [sys.executable, "-c", BARE_LOOP, str(seconds), *map(str, SIZES)]
    ran = subprocess.run(command, cwd=ROOT, env=clean(), capture_output=True, text=True, check=True)
    return {int(size): rate for size, rate in json.loads(ran.stdout).items()}


def beside_http(per_second: float) -> tuple[dict[int, float], float]:
    """Runs the bare loop beside at least this rate of requests to the no-op model, with the fewest connections that
    reach it. Returns the loop's rates by batch size, and the rate of requests."""
    url = URL % "noop"
    connections = next(
        (count for count in BESIDE_CONNECTIONS if wrk.drive(url, "oip", 1.0, count).per_second >= per_second),
        BESIDE_CONNECTIONS[-1],
    )
    seconds = LOAD_S / len(SIZES)
    load = subprocess.Popen(
        wrk.command(url, "oip", LOAD_S + 3, connections), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        rates = bare_loop(seconds)
    finally:
        said, _ = load.communicate(timeout=60)
    return rates, wrk.parse(said).per_second


def one_round(connections: Sequence[int], logs: Path) -> Round:
    alone = bare_loop(LOAD_S / len(SIZES))
    command = (sys.executable, "-m", "serving", "serve", str(HERE / "headway_noop.yaml"))
    with running(command, clean(), ROOT, logs / "saturation.log") as server:
        _wait(server)
        served = {}
        for count in connections:
            wrk.drive(URL % "mlp", "oip", 1.0, count)
            served[count] = wrk.drive(URL % "mlp", "oip", LOAD_S, count).per_second
        beside, per_second = beside_http(max(served.values()))
    return Round(alone=alone, beside=beside, beside_per_second=per_second, served=served)


def _wait(server: Running) -> None:
    body, headers = request("oip")
    for model in ("noop", "mlp"):
        server.wait_until(partial(answers, URL % model, body, headers), 150.0)


def report(rounds: Sequence[Round], command: str) -> str:
    alone, beside, served = (
        {key: median(getattr(one, name)[key] for one in rounds) for key in getattr(rounds[0], name)}
        for name in ("alone", "beside", "served")
    )
    best = max(served.values())
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    lines = [
        "# Saturation: the MLP behind HTTP compared with a bare loop",
        "",
        f"Commit {commit(ROOT)}. {facts}. Medians of {len(rounds)} rounds. Written by `{command}`.",
        "",
        "The bare loop only calls the model, in batches, on one torch thread.",
        "",
        "| batch size of the bare loop | rows/s, alone | rows/s, beside HTTP | Headway's best ÷ alone | ÷ beside |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {size} | {alone[size]:.0f} | {beside[size]:.0f} | {best / alone[size]:.2f} | {best / beside[size]:.2f} |"
        for size in alone
    ]
    lines += ["", "| connections | Headway, rows/s |", "|---:|---:|"]
    lines += [f"| {count} | {rate:.0f} |" for count, rate in served.items()]
    per_second = median(one.beside_per_second for one in rounds)
    lines += [
        "",
        f"“Beside HTTP” means beside {per_second:.0f} requests per second to the no-op model. For these, the clients, "
        "HAProxy and the codec use as much CPU as for requests to the MLP.",
    ]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_saturation", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="*", default=[32, 64, 128, 256])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "saturation.md")
    arguments = parser.parse_args(words)
    rounds = []
    for number in range(1, arguments.rounds + 1):
        began = time.monotonic()
        rounds.append(one_round(arguments.connections, ROOT / ".headway"))
        print(f"round {number} of {arguments.rounds}: {rounds[-1]} ({time.monotonic() - began:.0f} s)", flush=True)
    text = report(rounds, " ".join(["python -m benchmarks.bench_saturation", *words]))
    arguments.output.write_text(text)
    print("\n" + text)


if __name__ == "__main__":
    main(sys.argv[1:])
