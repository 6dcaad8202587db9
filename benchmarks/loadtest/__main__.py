"""`python -m benchmarks.loadtest`: runs the generator against a server with known service times, and up to its limit.

It answers three questions: Are the quantiles within 1 % of those that the server recorded? Does the generator keep the
planned schedule? Up to which rate does it do so on one core, and does it warn above this rate?"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from loadtest.load import Load
from loadtest.report import QUANTILES, Summary, quantile
from loadtest.result import take

_RATES = (1000.0, 2500.0, 5000.0, 10_000.0, 20_000.0, 40_000.0)


@contextmanager
def scripted(median_ms: float) -> Iterator[str]:
    """Runs a scripted server in its own process during the block, and yields its address."""
    command = [sys.executable, "-m", "benchmarks.loadtest.scripted_server", "--median-ms", str(median_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def taken_ns(url: str) -> list[int]:
    """Returns the service times that the server recorded since the last call, ascending."""
    with urllib.request.urlopen(f"{url}/taken", timeout=10) as answer:
        return sorted(json.loads(answer.read()))


def run(load: Load) -> Summary:
    return take(load)[0].summary


def accuracy(median_ms: float, rate: float, seconds: float) -> None:
    with scripted(median_ms) as url:
        load = Load(url=f"{url}/v2/models/m", scenario={"tasks": {"fill": {}}}, rate=rate, seconds=seconds)
        run(replace(load, seconds=0.5))
        taken_ns(url)
        summary = run(load)
        exact = taken_ns(url)
    print(f"\nservice times with a median of {median_ms:g} ms, {rate:g} per second, {summary.planned} shots")
    print(f"{'milliseconds':16}{'exact':>10}{'from sent':>12}{'':>9}{'from planned':>14}{'':>9}")
    for name, share in QUANTILES.items():
        true = quantile(exact, share) / 1e6
        sent, planned = summary.from_sent_ms[name], summary.from_planned_ms[name]
        off = f"{sent / true - 1:+9.2%}", f"{planned / true - 1:+9.2%}"
        print(f"{name:16}{true:10.3f}{sent:12.3f}{off[0]}{planned:14.3f}{off[1]}")
    late = summary.lateness_ms
    print(f"left late by: p50 {late['p50']:.3f} ms, p99 {late['p99']:.3f} ms, max {late['max']:.3f} ms")


def limit(seconds: float) -> None:
    """Runs one generator process at increasing rates, and prints its lateness and its warnings."""
    print(f"\n{'planned/s':>10}{'sent/s':>10}{'late p50 ms':>13}{'late p99 ms':>13}{'core':>7}  warnings")
    with scripted(0) as url:
        for rate in _RATES:
            load = Load(url=f"{url}/v2/models/m", scenario={"tasks": {"fill": {}}}, rate=rate, seconds=seconds)
            summary = run(replace(load, in_flight=1000))
            late, said = summary.lateness_ms, "; ".join(summary.warnings).partition(":")[0] or "none"
            per_s = summary.sent / summary.duration_s
            print(
                f"{rate:10.0f}{per_s:10.0f}{late['p50']:13.3f}{late['p99']:13.3f}{summary.generator_share:7.0%}  {said}"
            )


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loadtest", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    seconds = parser.parse_args(words).seconds
    print(f"{os.cpu_count()} cores; the scripted server shares them")
    for median_ms, rate in ((5.0, 200.0), (20.0, 500.0), (100.0, 1000.0)):
        accuracy(median_ms, rate, seconds)
    limit(min(seconds, 3.0))


if __name__ == "__main__":
    main(sys.argv[1:])
