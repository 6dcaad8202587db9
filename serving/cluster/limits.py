"""What follows from a model's declared bounds for the Ray deployment that serves it. Plain arithmetic, without Ray."""

from collections.abc import Mapping

from models.spec import ModelSpec
from serving.core.sizes import LARGEST_ROWS

RAY_DRAIN_S = 30.0  # Ray keeps a replica that is to go reachable for this long, so that HAProxy can learn of it
SETTLE_S = 5.0  # answers on their way out
# How long a connection may be idle. A HAProxy process that was replaced keeps its list of replicas, and its idle
# connections until they are used again: they have to end while the replicas of that list can still be reached.
KEEP_ALIVE_S = 20


def max_ongoing_requests(spec: ModelSpec) -> int:
    """Ray passes on, the engine's queue refuses: so Ray's bound is the queue's and two of the largest batches."""
    return spec.limits.max_queue_requests + 2 * (spec.max_batch_rows or LARGEST_ROWS)


def graceful_shutdown_s(spec: ModelSpec) -> float:
    """How long a replica may take to go: while it is still reachable, and then the longest forward pass."""
    return RAY_DRAIN_S + spec.limits.forward_timeout_s + SETTLE_S


def surge_percent(spec: ModelSpec, free: Mapping[str, float]) -> int:
    """How many replicas of the next version an update may start before it stops any of the present one, in percent of
    all replicas. 0 where there is no room for one more: the update then stops replicas first.

    free: what the cluster has left of "CPU" and "GPU".
    """
    needs = {"CPU": spec.resources.cpus, "GPU": spec.resources.gpus}
    room = min((free.get(name, 0.0) / need for name, need in needs.items() if need), default=float(spec.replicas))
    return 100 * min(spec.replicas, int(room)) // spec.replicas


def derived(spec: ModelSpec) -> dict[str, float]:
    """Everything that follows, by name, for whoever wants to see it."""
    return {
        "queue_requests": spec.limits.max_queue_requests,
        "max_ongoing_requests": max_ongoing_requests(spec),
        "graceful_shutdown_s": graceful_shutdown_s(spec),
        "cpus": spec.resources.cpus * spec.replicas,
        "gpus": spec.resources.gpus * spec.replicas,
    }


def check_memory(held_bytes: int, max_mb: int | None) -> None:
    """Raises where a replica holds more than it may: a health check that fails has Ray replace it."""
    if max_mb is not None and held_bytes > max_mb << 20:
        raise MemoryError(f"holds {held_bytes >> 20} MiB, more than limits.max_memory_mb, {max_mb}")
