"""Derives the bounds of a model's Ray deployment from the limits in its spec. Pure arithmetic, does not import Ray."""

from collections.abc import Mapping

from models.spec import ModelSpec
from serving.core.sizes import LARGEST_ROWS

RAY_DRAIN_S = 30.0  # Ray keeps a stopping replica reachable for this long, so that HAProxy can remove it from its list
SETTLE_S = 5.0  # to send the last answers
# How long a connection may be idle. When HAProxy reloads, the old process keeps its list of replicas and its idle
# client connections until they are used again. They have to close while the replicas of that list are still reachable.
KEEP_ALIVE_S = 20


def max_ongoing_requests(spec: ModelSpec) -> int:
    """The bound for Ray's `max_ongoing_requests`: the engine's queue and two of the largest batches.

    The engine's queue is to reject requests, not Ray, so Ray's bound must not be reached first."""
    return spec.limits.max_queue_requests + 2 * (spec.max_batch_rows or LARGEST_ROWS)


def graceful_shutdown_s(spec: ModelSpec) -> float:
    """The longest time in seconds until a replica has stopped: Ray's drain, the longest forward pass, the answers."""
    return RAY_DRAIN_S + spec.limits.forward_timeout_s + SETTLE_S


def surge_percent(spec: ModelSpec, free: Mapping[str, float]) -> int:
    """The number of replicas of the next version that an update may start before it stops replicas of the present one,
    in percent of all replicas. 0 if the cluster has no resources for one more: the update then stops replicas first.

    free: the resources "CPU" and "GPU" that are free in the cluster.
    """
    needs = {"CPU": spec.resources.cpus, "GPU": spec.resources.gpus}
    room = min((free.get(name, 0.0) / need for name, need in needs.items() if need), default=float(spec.replicas))
    return 100 * min(spec.replicas, int(room)) // spec.replicas


def derived(spec: ModelSpec) -> dict[str, float]:
    """All derived values by name, for `headway explain`."""
    return {
        "queue_requests": spec.limits.max_queue_requests,
        "max_ongoing_requests": max_ongoing_requests(spec),
        "graceful_shutdown_s": graceful_shutdown_s(spec),
        "cpus": spec.resources.cpus * spec.replicas,
        "gpus": spec.resources.gpus * spec.replicas,
    }


def check_memory(held_bytes: int, max_mb: int | None) -> None:
    """Raises MemoryError if a replica holds more memory than allowed. Called by the health check: when that fails, Ray
    replaces the replica."""
    if max_mb is not None and held_bytes > max_mb << 20:
        raise MemoryError(f"holds {held_bytes >> 20} MiB, more than limits.max_memory_mb, {max_mb}")
