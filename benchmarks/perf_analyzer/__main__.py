"""Runs perf_analyzer, unmodified, against a Headway server: HTTP and gRPC, sync, async and streaming, with and without
system shared memory, a decoupled model and sequences.

    python -m benchmarks.perf_analyzer [--only WORD ...] [--folder F] [--output FILE]

Downloads the tool the first time (tool.py); takes about three minutes. Exit status 1 if any run did not complete.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.peers.environment import clean
from benchmarks.peers.machine import commit, machine
from benchmarks.peers.running import running
from benchmarks.perf_analyzer.runs import HTTP, Result, Way, measuring, page, result, table, ways
from benchmarks.perf_analyzer.tool import RELEASE, Tool

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
START_LIMIT_S = 150
RUN_LIMIT_S = 60


def is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://{HTTP}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def failures(model: str) -> int:
    """Returns the number of requests that the server counts as failed."""
    with urllib.request.urlopen(f"http://{HTTP}/v2/models/{model}/stats", timeout=10) as answer:
        (statistics,) = json.load(answer)["model_stats"]
    return int(statistics["inference_stats"]["fail"]["count"])


def run(tool: Tool, way: Way, scratch: Path) -> Result:
    figures = scratch / "figures.csv"
    figures.unlink(missing_ok=True)
    before = failures(way.model)
    try:
        ended = subprocess.run(
            [*tool.command, *way.arguments, *measuring(str(figures))],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=RUN_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Result(way, failed=failures(way.model) - before, trouble=f"not finished after {RUN_LIMIT_S} s")
    content = figures.read_text() if figures.exists() else ""
    return result(way, ended.returncode, ended.stdout, content, failures(way.model) - before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="only runs with all of these: http stream noop"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / ".headway" / "perf_analyzer", help="of the tool")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "benchmarks" / "perf-analyzer.md")
    options = parser.parse_args()
    tool = Tool(options.folder)
    tool.ensure(print)
    chosen = [way for way in ways() if {*options.only} <= {way.model, way.wire, way.mode}]
    began = time.monotonic()
    results: list[Result] = []
    serve = (sys.executable, "-m", "serving", "serve", str(HERE / "headway.yaml"))
    environment = {**clean(), "PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(serve, environment, ROOT, options.folder / "headway.log") as server,
    ):
        server.wait_until(is_ready, START_LIMIT_S)
        for way in chosen:
            results.append(run(tool, way, Path(scratch)))
            print(table(results).splitlines()[-1], flush=True)
    if not options.only:
        seconds = time.monotonic() - began
        text = page(results, release=RELEASE, commit=commit(ROOT), machine=machine(), seconds=seconds)
        options.output.write_text(text)
        print(f"written: {options.output}")
    return 0 if all(one.is_good for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
