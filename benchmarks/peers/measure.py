"""Measures one server with all its works: waits for an answer, warms up, puts load on it, reads CPU times."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.peers import accounting, wrk
from benchmarks.peers.catalog import ROOT, SERVERS, Peer
from benchmarks.peers.environment import Environment, clean
from benchmarks.peers.request import is_right, request
from benchmarks.peers.running import Running, post, running
from benchmarks.peers.sample import Sample

WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """The load, the same for every server."""

    seconds: float
    connections: int


def offline(environment: Environment, seconds: float) -> tuple[dict[int, float], list[float]]:
    """Measures the MLP without a server. Returns (rows per second by batch size, answer to the common row)."""
    command = [str(environment.python), str(SERVERS / "offline.py"), "--seconds", str(seconds)]
    ran = subprocess.run(command, env=clean(), capture_output=True, text=True, check=True)
    measured = json.loads(ran.stdout)
    return {int(batch): rows for batch, rows in measured["rows_per_s"].items()}, measured["answer"]


def one_round(
    peer: Peer, works: Sequence[str], load: Load, expected: list[float], logs: Path, say: Callable[[str], None]
) -> list[Sample]:
    """Starts the peer, measures each of its works, and stops it. Raises DidNotStart."""
    body, headers = request(peer.script)
    log = logs / f"{peer.name}.log"
    with running(peer.command, peer.environment, ROOT, log, port=peer.port) as server:
        # Waits for all models, because one that is still loading would use the CPU during the measurement.
        for url in peer.urls.values():
            server.wait_until(partial(answers, url, body, headers), peer.start_limit_s)
        return [_sample(server, peer, work, load, expected, say) for work in works if work in peer.urls]


def answers(url: str, body: bytes, headers: dict[str, str]) -> bool:
    return post(url, body, headers)[0] == 200


def _sample(
    server: Running, peer: Peer, work: str, load: Load, expected: list[float], say: Callable[[str], None]
) -> Sample:
    url = peer.urls[work]
    _, answer = post(url, *request(peer.script))
    wrk.drive(url, peer.script, WARM_UP_S, load.connections)
    before, busy_before = server.members(), accounting.busy_seconds()
    seen = wrk.drive(url, peer.script, load.seconds, load.connections)
    after, busy_after = server.members(), accounting.busy_seconds()
    cpu_s = accounting.spent(before, after)
    sample = Sample(
        peer=peer.name,
        work=work,
        answered=seen.answered,
        failed=seen.failed,
        seconds=seen.seconds,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        cpu_s=cpu_s,
        generator_cpu_s=seen.generator_cpu_s,
        others_cpu_s=max(0.0, busy_after - busy_before - sum(cpu_s.values()) - seen.generator_cpu_s),
        right=is_right(answer, expected) if work == "mlp" else None,
    )
    say(
        f"  {peer.name:20} {work:5} {sample.per_second:8.0f}/s {sum(sample.cpu_us.values()):8.0f} us CPU per request, "
        f"p99 {sample.p99_ms:.1f} ms, failed {sample.failed}" + ("" if sample.right is not False else ", WRONG ANSWER")
    )
    return sample
