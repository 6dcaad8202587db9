"""Throughput and CPU of a demo model at saturation, with and without a prediction cache, interleaved.

    python -m benchmarks.cached_model [--model text-embedder] [--repeats 0.4] [--seconds 4] [--rounds 5]

Callers in this process send one request after the other to the engine. A share of the requests repeats an earlier one,
chosen by Zipf's law (exponent 1) among those seen, the most popular first; the others are new. Each run has requests of
its own, so that no run finds the answers of another. CPU is that of the whole process, per request.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import uvloop

from serving.cache.backend import CachedBackend
from serving.cluster.replica.engines import open_engine
from serving.config import load_settings
from serving.core.backend import Backend
from serving.core.outcome import Completed
from serving.telemetry.cache import CacheRecorder
from serving.telemetry.recorder import Recorder

ROOT = Path(__file__).parents[1]
CALLERS = 64
WORDS = (ROOT / "loadtest" / "samples" / "prose.txt").read_text().split()


class Run(NamedTuple):
    """The requests answered per second, CPU in us per request, and the share answered from the cache."""

    per_s: float
    cpu_us: float
    hits: float


def texts(seed: int, repeats: float) -> Iterator[dict[str, np.ndarray]]:
    """Yields requests without end."""
    chance = random.Random(seed)
    seen: list[bytes] = []
    while True:
        if seen and chance.random() < repeats:
            # A rank by Zipf's law: its logarithm is uniform.
            text = seen[int(len(seen) ** chance.random()) - 1]
        else:
            text = f"{seed} {len(seen)} {' '.join(chance.sample(WORDS, 12))}".encode()
            seen.append(text)
        array = np.empty((1, 1), object)
        array[0, 0] = text
        yield {"text": array}


async def run(backend: Backend, requests: Iterator[dict[str, np.ndarray]], seconds: float) -> Run:
    until_s = time.monotonic() + seconds
    answered = hits = 0

    async def caller() -> None:
        nonlocal answered, hits
        while time.monotonic() < until_s:
            outcome: Any = await backend.submit(next(requests), rows=1, tenant="acme")
            assert isinstance(outcome, Completed), outcome
            answered += 1
            hits += bool(outcome.cached)

    began_s, began_cpu_s = time.monotonic(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took_s = time.monotonic() - began_s
    return Run(answered / took_s, 1e6 * (time.process_time() - began_cpu_s) / answered, hits / answered)


async def measure(model: str, repeats: float, seconds: float, rounds: int) -> None:
    spec = next(spec for spec in load_settings(ROOT / "demo.yaml").model_specs() if spec.name == model)
    engine = await open_engine(replace(spec, latency_budget_ms=None), report=print)  # nothing is refused
    cached = CachedBackend(
        engine, model=model, outputs=[output.name for output in spec.outputs], fingerprint=b"v1", ttl_s=3600,
        most_bytes=64 << 20, observer=CacheRecorder(Recorder(), lambda: 0), random=random.random,
    )  # fmt: skip
    runs: dict[str, list[Run]] = {"without": [], "with": []}
    for number in range(rounds):
        for name, backend in (("without", engine), ("with", cached)):
            one = await run(backend, texts(number, repeats), seconds)
            runs[name].append(one)
            print(f"{name:8} {one.per_s:8.1f}/s {one.cpu_us:9.0f} us, hits {one.hits:.2f}")
    faster = median(one.per_s for one in runs["with"]) / median(one.per_s for one in runs["without"])
    cheaper = median(one.cpu_us for one in runs["with"]) / median(one.cpu_us for one in runs["without"])
    print(f"with the cache: {faster:.2f} times the throughput, {cheaper:.2f} of the CPU per request (medians)")
    await engine.drain(timeout_s=5)
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="text-embedder")
    parser.add_argument("--repeats", type=float, default=0.4, help="share of requests that repeat an earlier one")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    uvloop.run(measure(arguments.model, arguments.repeats, arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    main()
