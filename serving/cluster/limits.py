"""What follows from a model's declared bounds for the Ray deployment that serves it. Plain arithmetic, without Ray."""

from models.spec import ModelSpec

LARGEST_LEARNED_ROWS = 256  # room for batches where no bound is set
RAY_DRAIN_S = 30.0  # Ray keeps a replica that is to go reachable for this long, so that HAProxy can learn of it
SETTLE_S = 5.0  # answers on their way out


def max_ongoing_requests(spec: ModelSpec) -> int:
    """Ray passes on, the engine's queue refuses: so Ray's bound is the queue's and two of the largest batches."""
    return spec.limits.max_queue_requests + 2 * (spec.max_batch_rows or LARGEST_LEARNED_ROWS)


def graceful_shutdown_s(spec: ModelSpec) -> float:
    """How long a replica may take to go: while it is still reachable, and then the longest forward pass."""
    return RAY_DRAIN_S + spec.limits.forward_timeout_s + SETTLE_S


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
