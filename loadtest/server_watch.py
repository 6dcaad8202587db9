"""Reads the server's statistics once a second during a run.

Headway's `GET /metrics` covers all replicas and the reasons of dropped requests. Other servers are asked for the
protocol's statistics (`GET /v2/models/<name>/stats`), whose counters are Triton's. Behind a load balancer, these are of
the replica that answers, so with several replicas the numbers describe only one of them."""

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
    """Counters since the server's start, read at `at_s` seconds of the run; sums over all watched models.

    by_batch_rows: number of batches by their rows; with histogram buckets (`in_buckets`), by the bucket's upper bound.
    dropped: requests that were refused, expired or failed, by reason; empty if the server reports none.
    clock_s: when the server counted, by its own clock; 0 if unknown. Counts may be a second old.
    lanes: how many batches the server computes at a time."""

    at_s: float
    rows: int = 0  # computed
    batches: int = 0
    answered: int = 0
    failed: int = 0
    queue_ns: int = 0  # waiting time, summed over all answered requests
    compute_ns: int = 0
    by_batch_rows: Mapping[int, int] = field(default_factory=dict)
    in_buckets: bool = False
    dropped: Mapping[str, int] = field(default_factory=dict)
    clock_s: float = 0.0
    lanes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPoint:
    """Means between two samples. `waiting`: number of requests in the queue; `batch_rows`: rows per batch;
    `busy_ratio`: share of time in which the lanes compute."""

    at_s: float
    waiting: float
    batch_rows: float | None
    busy_ratio: float


class ServerWatch:
    """Samples a server's statistics. `sample` blocks, each read for up to half a second, so it must be called in a
    process that does not send requests."""

    def __init__(self, address: Address, models: Sequence[str]) -> None:
        self._address = address
        self._models = [model for model in models if model]
        self._has_metrics = True  # until a read shows otherwise
        self._clock_s = 0.0
        self._paths = [f"/v2/models/{quote(model)}/stats" for model in self._models]

    def sample(self, at_s: float) -> ServerSample | None:
        """Reads the statistics. Returns None if the server does not answer in time, has no statistics, or none newer
        than the last ones."""
        entries: list[dict[str, Any]] = []
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=_PATIENCE_S)
        try:
            if self._has_metrics and (scraped := self._scrape(connection, at_s)):
                is_new = not scraped.clock_s or scraped.clock_s != self._clock_s
                self._clock_s = scraped.clock_s
                return scraped if is_new else None
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
        """Reads Headway's metrics. Returns None if they are not Headway's, or lack these models."""
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        body = answer.read()
        return read_metrics(body.decode(), self._models, at_s) if answer.status == 200 else None


def read_metrics(text: str, models: Sequence[str], at_s: float) -> ServerSample | None:
    """Parses a scrape of all replicas. Returns None if it is not Headway's, or lacks these models."""
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
    """Converts cumulative buckets to counts of each bucket. The last bucket has no upper bound; twice the bound before
    it is used."""
    counts: dict[int, int] = {}
    below = 0
    for edge, count in sorted(up_to.items()):
        counts[int(edge) if edge < math.inf else 2 * max(counts, default=1)] = count - below
        below = count
    return counts


def read_sample(entries: Sequence[Mapping[str, Any]], at_s: float) -> ServerSample:
    """Converts the protocol's `model_stats`. Raises KeyError or TypeError if they have another form."""
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
    """Returns the means between consecutive samples. The mean number of waiting requests is the waiting time divided by
    the time passed (Little 1961)."""
    means = []
    for before, after in pairwise(samples):
        by_its_clock = before.clock_s and after.clock_s
        passed_ns = (after.clock_s - before.clock_s if by_its_clock else after.at_s - before.at_s) * 1e9
        # Skipped: the counters are of a restarted server or of another replica.
        if passed_ns <= 0 or after.batches < before.batches or after.queue_ns < before.queue_ns:
            continue
        batches = after.batches - before.batches
        means.append(
            ServerPoint(
                at_s=after.at_s,
                waiting=(after.queue_ns - before.queue_ns) / passed_ns,
                batch_rows=(after.rows - before.rows) / batches if batches else None,
                busy_ratio=max(0, after.compute_ns - before.compute_ns) / passed_ns / after.lanes,
            )
        )
    return means


def drops(samples: Sequence[ServerSample]) -> dict[str, int]:
    """Returns the number of requests that the server refused, expired or failed during the run, by reason, the most
    frequent first."""
    if len(samples) < 2:
        return {}
    grown = Counter(samples[-1].dropped) - Counter(samples[0].dropped)
    return dict(grown.most_common())


def batch_sizes(samples: Sequence[ServerSample]) -> dict[int, int]:
    """Returns the number of batches during the run, by their rows."""
    if len(samples) < 2:
        return {}
    first, last = samples[0].by_batch_rows, samples[-1].by_batch_rows
    grown = {rows: count - first.get(rows, 0) for rows, count in last.items()}
    return {rows: count for rows, count in sorted(grown.items()) if count > 0}


def sample_as_json(sample: ServerSample) -> dict[str, Any]:
    return asdict(sample)


def sample_from_json(fields: Mapping[str, Any]) -> ServerSample:
    by_rows = {int(rows): count for rows, count in fields["by_batch_rows"].items()}
    return ServerSample(**{**fields, "by_batch_rows": by_rows})
