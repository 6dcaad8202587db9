"""What the server says of itself during a run, read once a second.

Headway's `GET /metrics` tells of all replicas and why requests were dropped. Other servers are asked for the statistics
of the protocol (`GET /v2/models/<name>/stats`), whose counters are Triton's; behind a load balancer they are of
whichever replica answered, so with several replicas take the numbers as of one of them."""

import http.client
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from loadtest import exposition
from loadtest.wires import Address

_PATIENCE_S = 0.5
_SUMMED = {
    "headway_predictions_total": 1,
    "headway_batches_total": 1,
    "headway_batch_seconds_sum": 1e9,
    "headway_lanes": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSample:
    """Counters since the server started, at an instant of the run (seconds); of all watched models together.

    by_batch_rows: batches by their rows; where the server counts by buckets (`in_buckets`), by the most rows of each.
    dropped: requests that were refused, expired or failed, by why; empty where the server does not say.
    clock_s: when the server counted, by its own clock; 0 where it does not say. Counts may be a second old.
    lanes: how many batches it computes at a time."""

    at_s: float
    rows: int = 0  # inferred
    batches: int = 0
    answered: int = 0
    failed: int = 0
    queue_ns: int = 0  # waited, of all answered requests together
    compute_ns: int = 0
    by_batch_rows: Mapping[int, int] = field(default_factory=dict)
    in_buckets: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)
    clock_s: float = 0.0
    lanes: int = 1


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
        self._models = [model for model in models if model]
        self._has_metrics = True  # until the server says otherwise
        self._clock_s = 0.0
        self._paths = [f"/v2/models/{quote(model)}/stats" for model in self._models]

    def sample(self, at_s: float) -> ServerSample | None:
        """None where the server does not answer in time, tells no statistics, or nothing newer than last time."""
        entries: list[dict[str, Any]] = []
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=_PATIENCE_S)
        try:
            if self._has_metrics and (seen := self._scrape(connection, at_s)):
                is_new = not seen.clock_s or seen.clock_s != self._clock_s
                self._clock_s = seen.clock_s
                return seen if is_new else None
            self._has_metrics = False
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

    def _scrape(self, connection: http.client.HTTPConnection, at_s: float) -> ServerSample | None:
        """None where the metrics are not Headway's, or say nothing of these models."""
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read()
        return read_metrics(body.decode(), self._models, at_s) if answer.status == 200 else None


def read_metrics(text: str, models: Sequence[str], at_s: float) -> ServerSample | None:
    """From a scrape of all replicas; None where it is not Headway's, or says nothing of these models."""
    totals: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    up_to: Counter[float] = Counter()
    clock_s = 0.0
    for name, labels, value in exposition.read(text):
        if labels.get("model") not in models:
            continue
        if name == "headway_requests_total":
            outcome, reason = labels["outcome"], labels["reason"]
            totals["requests"] += 1
            if outcome == "completed":
                totals["completed"] += int(value)
            elif value:
                dropped[f"{outcome}: {reason.replace('_', ' ')}" if reason else outcome] += int(value)
        elif name == "headway_batch_rows_bucket":
            up_to[float(labels["le"])] += int(value)
        elif name == "headway_stage_seconds_sum" and labels["stage"] == "queue":
            totals["queue_ns"] += round(value * 1e9)
        elif name == "headway_uptime_seconds":
            clock_s = max(clock_s, value)
        elif name in _SUMMED:
            totals[name] += round(value * _SUMMED[name])
    if not totals["requests"]:
        return None
    return ServerSample(
        at_s=at_s,
        rows=totals["headway_predictions_total"],
        batches=totals["headway_batches_total"],
        answered=totals["completed"],
        failed=dropped.total(),
        queue_ns=totals["queue_ns"],
        compute_ns=totals["headway_batch_seconds_sum"],
        by_batch_rows=_apart(up_to),
        in_buckets=True,
        dropped=dict(dropped),
        clock_s=clock_s,
        lanes=max(1, totals["headway_lanes"]),
    )


def _apart(up_to: Mapping[float, int]) -> dict[int, int]:
    """Cumulative buckets as counts of their own. The last has no edge; it is called twice the one before."""
    found: dict[int, int] = {}
    below = 0
    for edge, count in sorted(up_to.items()):
        found[int(edge) if edge < math.inf else 2 * max(found, default=1)] = count - below
        below = count
    return found


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
        by_its_clock = before.clock_s and after.clock_s
        passed_ns = (after.clock_s - before.clock_s if by_its_clock else after.at_s - before.at_s) * 1e9
        # A server that was restarted, or another replica that answered, counts from elsewhere: nothing can be said.
        if passed_ns <= 0 or after.batches < before.batches or after.queue_ns < before.queue_ns:
            continue
        batches = after.batches - before.batches
        found.append(
            ServerPoint(
                at_s=after.at_s,
                waiting=(after.queue_ns - before.queue_ns) / passed_ns,
                batch_rows=(after.rows - before.rows) / batches if batches else None,
                busy_ratio=max(0, after.compute_ns - before.compute_ns) / passed_ns / after.lanes,
            )
        )
    return found


def drops(samples: Sequence[ServerSample]) -> dict[str, int]:
    """Requests of this run that the server refused, gave up or failed, by why, the most frequent first."""
    if len(samples) < 2:
        return {}
    grown = Counter(samples[-1].dropped) - Counter(samples[0].dropped)
    return dict(grown.most_common())


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
