"""Drives the load with wrk: builds its command, runs it, reads the one line its Lua script prints at the end."""

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
SCRIPTS = Path(__file__).with_name("load")
_MARK = "summary "


class LoadFailed(Exception):
    """wrk ended without its summary line; the message holds what it said instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the load generator saw. `answered` are the answers below status 400; `failed` is everything else."""

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
    # Several timeouts of wrk's default 2 s would fall into one run: a slow server must be seen as slow, not as broken.
    fixed = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    return [*fixed, "-s", str(SCRIPTS / f"{script}.lua"), url]


def parse(output: str, generator_cpu_s: float = 0.0) -> Seen:
    lines = [line for line in output.splitlines() if line.startswith(_MARK)]
    if len(lines) != 1:
        raise LoadFailed(output.strip()[-2000:] or "wrk said nothing")
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
    """Blocks for about `seconds`; what the generator itself cost is read from the kernel."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = command(url, script, seconds, connections)
    ran = subprocess.run(started, capture_output=True, text=True, timeout=seconds + 60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return parse(ran.stdout + ran.stderr, generator_cpu_s=cpu_s)
