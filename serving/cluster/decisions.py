"""The latest scaling decisions, kept where every process of the cluster can read them: in Ray's key-value store.

The controller decides, and whoever shows it runs elsewhere. A model's decisions are few, so they are one value.
"""

import json
from typing import Any

from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

NAMESPACE = b"headway"
KEPT = 100  # decisions of each model

Decision = dict[str, Any]


def record(model: str, decision: Decision) -> None:
    """Adds a decision. Called by the controller only, so nobody else writes meanwhile."""
    kept = [*recent(model), decision][-KEPT:]
    _internal_kv_put(_key(model), json.dumps(kept).encode(), overwrite=True, namespace=NAMESPACE)


def recent(model: str) -> list[Decision]:
    """The latest decisions of this model, oldest first: `at` (seconds since 1970), `current`, `wanted`, `cause`,
    `reason`, and what was seen: `replicas`, `queued`, `wait_ms`, `busy_ratio`, `load_ratio`, `received`,
    `missed`."""
    found = _internal_kv_get(_key(model), namespace=NAMESPACE)
    return json.loads(found) if found else []


def _key(model: str) -> bytes:
    return f"decisions/{model}".encode()
