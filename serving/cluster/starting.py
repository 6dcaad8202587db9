"""Starts Ray Serve, and deploys while its proxies start: replicas load for longer than HAProxy needs to be up."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

LOOK_S = 0.05


@contextmanager
def starting_serve(**options: Any) -> Iterator[None]:
    """Starts Ray Serve in a thread. The body runs once the controller exists, and may deploy; leaving waits for the
    proxies. Raises what `serve.start` raises, before the body if there is no controller.

    options: those of `serve.start`."""
    with ThreadPoolExecutor(1, "serve-start") as beside:
        started = beside.submit(serve.start, **options)
        while not _has_controller():
            if started.done():
                started.result()
                break
            time.sleep(LOOK_S)
        yield
        started.result()


def _has_controller() -> bool:
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True
