"""Stores the latest scaling decisions in Ray's key-value store, where every process of the cluster can read them.

The controller decides; the front, in another process, shows the decisions. All decisions of a model are one value,
because they are few.
"""

import json
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

NAMESPACE = b"headway"
KEPT = 100  # decisions of each model

Decision = dict[str, Any]


def record(model: str, decision: Decision) -> None:
    """Adds a decision. Only the controller may call it: reading and writing back is not atomic."""
    kept = [*recent(model), decision][-KEPT:]
    _internal_kv_put(_key(model), json.dumps(kept).encode(), overwrite=True, namespace=NAMESPACE)


def recent(model: str) -> list[Decision]:
    """Returns the latest decisions of this model, oldest first.

    Each has `at` (seconds since 1970), `current`, `wanted`, `cause`, `reason`, and the signal on which it was based:
    `replicas`, `queued`, `wait_ms`, `busy_ratio`, `load_ratio`, `received`, `missed`."""
    found = _internal_kv_get(_key(model), namespace=NAMESPACE)
    return json.loads(found) if found else []


def _key(model: str) -> bytes:
    return f"decisions/{model}".encode()
