"""The runs of perf_analyzer, its arguments, the parsing of its output, and the table of results. Pure functions."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

HTTP = "127.0.0.1:8370"
GRPC = "127.0.0.1:8378"
CONCURRENCY = 4
WINDOW_REQUESTS = 500
# Three consecutive windows within this many percent of their mean are a result. High, because machines are shared.
STABLE_PERCENT = 50
MOST_WINDOWS = 12
_COUNT = re.compile(r"Request count: (\d+)")


@dataclass(frozen=True, slots=True)
class Way:
    """One run, a row of the table. mode: sync, async or stream."""

    model: str
    wire: str
    mode: str
    shared_memory: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        modes = {"sync": (), "async": ("--async",), "stream": ("--async", "--streaming")}
        return (
            *("-m", self.model, "-i", self.wire, "-u", HTTP if self.wire == "http" else GRPC),
            *modes[self.mode],
            *(("--shared-memory", "system") if self.shared_memory else ()),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run. failed: number of failed requests by Headway's count. trouble: the reason for missing
    figures, or empty."""

    way: Way
    requests: int = 0
    per_second: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    failed: int = 0
    trouble: str = ""

    @property
    def is_good(self) -> bool:
        return not self.trouble and not self.failed


def ways() -> Iterator[Way]:
    """Yields all runs. None has large tensors: perf_analyzer keeps those of every request, and with 1 MB each it used
    20 GB within a minute."""
    for shared_memory in (False, True):
        for wire, mode in (
            ("http", "sync"),
            ("http", "async"),
            ("grpc", "sync"),
            ("grpc", "async"),
            ("grpc", "stream"),
        ):
            yield Way("noop", wire, mode, shared_memory)
    for shared_memory in (False, True):
        yield Way("repeat", "grpc", "stream", shared_memory)  # it supports decoupled models only with streams
    for wire, mode in (("http", "sync"), ("grpc", "stream")):
        yield Way("accumulate", wire, mode, shared_memory=False)


def measuring(figures: str) -> tuple[str, ...]:
    """Returns the arguments common to all runs. figures: the output file."""
    return (
        *("--concurrency-range", str(CONCURRENCY), "--measurement-mode", "count_windows"),
        *("--measurement-request-count", str(WINDOW_REQUESTS), "--stability-percentage", str(STABLE_PERCENT)),
        *("--max-trials", str(MOST_WINDOWS), "-f", figures),
    )


def result(way: Way, code: int, said: str, figures: str, failed: int) -> Result:
    """Parses the result of a run. code, said: perf_analyzer's exit status and output. figures: its file's content."""
    rows = list(csv.DictReader(figures.splitlines()))
    if code or not rows:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        return Result(way, failed=failed, trouble=f"exit code {code}: {lines[-1] if lines else 'silent'}")
    (row,) = rows
    counted = _COUNT.search(said)
    return Result(
        way,
        requests=int(counted[1]) if counted else 0,
        per_second=float(row["Inferences/Second"]),
        p50_us=float(row["p50 latency"]),
        p99_us=float(row["p99 latency"]),
        failed=failed,
    )


def table(results: Sequence[Result]) -> str:
    lines = [
        "| model | wire | calls | shared memory | requests | infer/s | p50, µs | p99, µs | failed |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for one in results:
        way = one.way
        named = f"| {way.model} | {way.wire} | {way.mode} | {'system' if way.shared_memory else '–'} |"
        if one.trouble:
            lines.append(f"{named} {one.trouble} | | | | {one.failed} |")
        else:
            numbers = (one.requests, one.per_second, one.p50_us, one.p99_us, one.failed)
            lines.append(f"{named} " + " | ".join(f"{number:.0f}" for number in numbers) + " |")
    return "\n".join(lines)


def page(results: Sequence[Result], *, release: str, commit: str, machine: Mapping[str, str], seconds: float) -> str:
    good = sum(one.is_good for one in results)
    facts = "; ".join(f"{name}: {value}" for name, value in machine.items())
    example = " ".join(("perf_analyzer", *results[0].way.arguments, *measuring("figures.csv")))
    return f"""# perf_analyzer with Headway

{good} of {len(results)} runs completed without an error. Written by `python -m benchmarks.perf_analyzer`.

perf_analyzer {release}; commit {commit}; {facts}. All runs together took {seconds:.0f} s.
The machine is shared, so the figures show only that the runs work, and roughly how fast. To compare servers, use
`python -m benchmarks.peers`.

{table(results)}

The models are those of `benchmarks/perf_analyzer/headway.yaml`: `noop` takes 4 KB, too little to gain from shared
memory; `repeat` sends four answers to each request, and perf_analyzer waits for the last; `accumulate` has state and
gets its requests in sequences. {CONCURRENCY} requests are in flight at a time; windows of at least {WINDOW_REQUESTS}
requests are measured until three in a row agree. `failed` is Headway's count. The command of the first row:

    {example}
"""
