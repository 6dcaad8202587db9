"""Snapshots in Prometheus' text format. The only place that knows prometheus-client.

No registry and no counters of its own: what is exported is read from a snapshot at the moment of the scrape, so metrics
cost a request nothing but what the replica counts anyway.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
    UntypedMetricFamily,
)

from serving.telemetry.histogram import Histogram
from serving.telemetry.metrics import OF_MODEL, OF_REPLICA, OF_TRITON, Kind, Metric
from serving.telemetry.snapshot import ClusterSnapshot

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_FAMILIES: dict[Kind, Any] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
    Kind.SUMMARY: SummaryMetricFamily,
    Kind.UNTYPED: UntypedMetricFamily,
}


def exposition(snapshot: ClusterSnapshot) -> bytes:
    return generate_latest(_Families(snapshot))


class _Families:
    """What prometheus-client calls a collector."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Any]:
        models = [((model.name,), model) for model in self._snapshot.models]
        replicas = [((one.model, one.version, one.replica), one) for _, model in models for one in model.replicas]
        for metric in (*OF_REPLICA, *OF_TRITON):
            yield from _family(metric, replicas)
        for metric in OF_MODEL:
            yield from _family(metric, models)
        yield GaugeMetricFamily(
            "headway_collect_seconds", "How long it took to ask every replica.", self._snapshot.took_ns / 1e9
        )


def _family(metric: Metric, sources: Sequence[tuple[tuple[str, ...], Any]]) -> Iterator[Any]:
    """One family, or none where nobody has such a thing."""
    family = _FAMILIES[metric.kind](metric.name, metric.meaning, labels=(*metric.common, *metric.labels))
    for common, source in sources:
        for own, value in metric.read(source):
            _add(family, metric, [*common, *own], value)
    if family.samples:
        yield family


def _add(family: Any, metric: Metric, labels: list[str], value: Any) -> None:
    if metric.kind is Kind.HISTOGRAM:
        family.add_metric(labels, _buckets(value, metric.scale), value.total * metric.scale)
    elif metric.kind is Kind.SUMMARY:
        count, total = value
        family.add_metric(labels, count_value=count, sum_value=total * metric.scale)
    else:
        family.add_metric(labels, value * metric.scale)


def _buckets(histogram: Histogram, scale: float) -> list[tuple[str, int]]:
    edges = [f"{bound * scale:.9g}" for bound in histogram.bounds]
    buckets, below = [], 0
    for edge, count in zip([*edges, "+Inf"], histogram.counts, strict=True):
        below += count
        buckets.append((edge, below))
    return buckets
