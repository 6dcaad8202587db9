"""Writes snapshots in Prometheus' text format. Only this module uses prometheus-client.

It has no registry and no counters. The values are read from a snapshot when they are scraped, so a request costs no
more than the counting that the replica does anyway.
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

from serving.names import FRONT
from serving.telemetry.histogram import Histogram
from serving.telemetry.metrics import OF_FEATURES, OF_MODEL, OF_REPLICA, OF_TRITON, Kind, Metric
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
    """Returns all metrics of the snapshot in Prometheus' text format."""
    return generate_latest(_Families(snapshot))


class _Families:
    """A collector as prometheus-client expects it."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Any]:
        models = [((model.name, model.version), model) for model in self._snapshot.models]
        replicas: list[tuple[tuple[str, ...], Any]] = [
            ((one.model, one.version, one.replica), one) for _, model in models for one in model.replicas
        ]
        front = [(("", "", FRONT), self._snapshot.front)] if self._snapshot.front is not None else []
        for metric in (*OF_REPLICA, *OF_TRITON):
            yield from _family(metric, [*replicas, *front] if metric in OF_FEATURES else replicas)
        for metric in OF_MODEL:
            yield from _family(metric, models)
        yield GaugeMetricFamily(
            "headway_collect_seconds", "Time to collect the metrics of all replicas.", self._snapshot.took_ns / 1e9
        )


def _family(metric: Metric, sources: Sequence[tuple[tuple[str, ...], Any]]) -> Iterator[Any]:
    """Yields the metric family, or nothing if no source has a value for it."""
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
    """Returns (upper bound, cumulative count) of each bucket."""
    edges = [f"{bound * scale:.9g}" for bound in histogram.bounds]
    buckets, below = [], 0
    for edge, count in zip([*edges, "+Inf"], histogram.counts, strict=True):
        below += count
        buckets.append((edge, below))
    return buckets
