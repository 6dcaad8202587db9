"""Saturates the engine in a process started by Ray, from its own event loop, to measure the overhead of Ray.

Needs Ray; imported only with `--ray`.
"""

import asyncio
import dataclasses
import os
import sys
from importlib import import_module
from typing import Any

from benchmarks.gpu.load import Saturated, saturate
from benchmarks.gpu.models import Subject
from benchmarks.gpu.subject import IN_FLIGHT, SWITCH_INTERVAL_S, Options, loop_factory, requests_for
from serving.runtime.engine import Engine


def saturated_under_ray(subject: Subject, options: Options) -> Saturated:
    """Starts a local Ray, saturates the engine in a worker, and stops Ray."""
    ray: Any = import_module("ray")
    path = os.pathsep.join([os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    gpus = 1 if options.device.type == "cuda" else 0
    ray.init(
        address="local", num_cpus=1, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )  # fmt: skip
    try:
        remote = ray.remote(num_cpus=1, num_gpus=gpus)(saturated)
        found: dict[str, Any] = ray.get(remote.remote(subject.name, options), timeout=options.left_s())
        return Saturated(**found)
    finally:
        ray.shutdown()


def saturated(name: str, options: Options) -> dict[str, Any]:
    """Saturates the engine. Runs in the worker."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    subject = options.subjects()[name]

    async def story() -> Saturated:
        async with Engine([options.load(subject)]) as engine:
            in_flight = IN_FLIGHT * engine.batcher.sizes.largest_rows
            return await saturate(engine, requests_for(subject), in_flight=in_flight, seconds=options.seconds)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return dataclasses.asdict(runner.run(story()))
