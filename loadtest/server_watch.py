"""What the server says of itself during a run: its statistics (`GET /v2/models/<name>/stats`), read once a second.

The counters are Triton's, so any server that speaks that extension can be watched. Behind a load balancer they are of
whichever replica answered; with several replicas take the numbers as of one of them."""

import http.client
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from loadtest.wires import Address

_PATIENCE_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSample:
    """Counters since the server started, at an instant of the run (seconds); of all watched models together."""

    at_s: float
    rows: int = 0  # inferred
    batches: int = 0
    answered: int = 0
    failed: int = 0
    queue_ns: int = 0  # waited, of all answered requests together
    compute_ns: int = 0
    by_batch_rows: Mapping[int, int] = field(default_factory=dict)  # batches by their rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPoint:
    """What happened between two samples. `waiting`: mean number of requests in the queue; `batch_rows`: mean."""

    at_s: float
    waiting: float
    batch_rows: float | None
    busy_ratio: float


class ServerWatch:
    """Blocking, half a second at most: it belongs into a process that does not shoot."""

    def __init__(self, address: Address, models: Sequence[str]) -> None:
        self._address = address
        self._paths = [f"/v2/models/{quote(model)}/stats" for model in models if model]

    def sample(self, at_s: float) -> ServerSample | None:
        """None where the server does not answer in time, or tells no statistics."""
        entries: list[dict[str, Any]] = []
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=_PATIENCE_S)
        try:
            for path in self._paths:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    entries += json.loads(body)["model_stats"]
            return read_sample(entries, at_s) if entries else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return None
        finally:
            connection.close()


def read_sample(entries: Sequence[Mapping[str, Any]], at_s: float) -> ServerSample:
    """From the protocol's `model_stats`. KeyError or TypeError where they are something else."""
    batches: Counter[int] = Counter()
    for entry in entries:
        for batch in entry.get("batch_stats", ()):
            batches[int(batch["batch_size"])] += int(batch["compute_infer"]["count"])

    def total(name: str, unit: str) -> int:
        return sum(int(entry["inference_stats"][name][unit]) for entry in entries)

    return ServerSample(
        at_s=at_s,
        rows=sum(int(entry["inference_count"]) for entry in entries),
        batches=sum(int(entry["execution_count"]) for entry in entries),
        answered=total("success", "count"),
        failed=total("fail", "count"),
        queue_ns=total("queue", "ns"),
        compute_ns=sum(
            int(batch["compute_infer"]["ns"]) for entry in entries for batch in entry.get("batch_stats", ())
        ),
        by_batch_rows=dict(batches),
    )


def points(samples: Sequence[ServerSample]) -> list[ServerPoint]:
    """Between each two samples. The mean number waiting is the time waited over the time passed (Little 1961)."""
    found = []
    for before, after in pairwise(samples):
        passed_ns = (after.at_s - before.at_s) * 1e9
        # A server that was restarted, or another replica that answered, counts from elsewhere: nothing can be said.
        if passed_ns <= 0 or after.batches < before.batches or after.queue_ns < before.queue_ns:
            continue
        batches = after.batches - before.batches
        found.append(
            ServerPoint(
                at_s=after.at_s,
                waiting=(after.queue_ns - before.queue_ns) / passed_ns,
                batch_rows=(after.rows - before.rows) / batches if batches else None,
                busy_ratio=max(0, after.compute_ns - before.compute_ns) / passed_ns,
            )
        )
    return found


def batch_sizes(samples: Sequence[ServerSample]) -> dict[int, int]:
    """Batches of this run by their rows."""
    if len(samples) < 2:
        return {}
    first, last = samples[0].by_batch_rows, samples[-1].by_batch_rows
    grown = {rows: count - first.get(rows, 0) for rows, count in last.items()}
    return {rows: count for rows, count in sorted(grown.items()) if count > 0}


def sample_as_json(sample: ServerSample) -> dict[str, Any]:
    return asdict(sample)


def sample_from_json(told: Mapping[str, Any]) -> ServerSample:
    by_rows = {int(rows): count for rows, count in told["by_batch_rows"].items()}
    return ServerSample(**{**told, "by_batch_rows": by_rows})
