"""Runs the load generator wrk: builds its command, runs it, parses the line that its Lua script prints at the end."""

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
SCRIPTS = Path(__file__).with_name("load")
_MARK = "summary "


class LoadFailed(Exception):
    """wrk ended without its summary line; the message contains its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The result of wrk. `answered`: answers with a status below 400. `failed`: all other requests."""

    answered: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float
    generator_cpu_s: float

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


def command(url: str, script: str, seconds: float, connections: int = CONNECTIONS) -> list[str]:
    # wrk's default timeout of 2 s would count answers of slow servers as failed.
    fixed = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    return [*fixed, "-s", str(SCRIPTS / f"{script}.lua"), url]


def parse(output: str, generator_cpu_s: float = 0.0) -> Seen:
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    if len(lines) != 1:
        raise LoadFailed(output.strip()[-2000:] or "wrk printed nothing")
    counts = json.loads(lines[0].removeprefix(_MARK))
    return Seen(
        answered=counts["requests"] - counts["status"],
        failed=sum(counts[kind] for kind in ("status", "connect", "read", "write", "timeout")),
        seconds=counts["duration_us"] / 1e6,
        p50_ms=counts["p50_us"] / 1e3,
        p99_ms=counts["p99_us"] / 1e3,
        generator_cpu_s=generator_cpu_s,
    )


def drive(url: str, script: str, seconds: float, connections: int = CONNECTIONS) -> Seen:
    """Runs wrk and blocks for about `seconds`. The generator's own CPU time is read from the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = command(url, script, seconds, connections)
    ran = subprocess.run(started, capture_output=True, text=True, timeout=seconds + 60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return parse(ran.stdout + ran.stderr, generator_cpu_s=cpu_s)
