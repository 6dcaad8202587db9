"""The table of all metrics: name, kind, unit, labels, meaning, and the function that reads its value from a snapshot.

A replica's metrics have the labels `model`, `version` and `replica` in addition to their own. So a counter never falls;
it ends with its replica. docs/metrics.md contains this table. Metrics with Triton's names follow at the end, so that
Triton's dashboards work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from serving.core.batch import CutReason
from serving.core.statistics import Duration
from serving.telemetry.cache import FAILURES, SOURCES, CacheCounts
from serving.telemetry.gpu import THROTTLE_REASONS
from serving.telemetry.histogram import Histogram
from serving.telemetry.quotas import REFUSALS
from serving.telemetry.recorder import ENDINGS
from serving.telemetry.snapshot import FrontSnapshot, ModelSnapshot, ReplicaSnapshot

Labels = tuple[str, ...]
Values = Iterator[tuple[Labels, Any]]  # a number, a Histogram for histograms, (count, sum) for summaries
NS = 1e-9
NS_TO_US = 1e-3


class Kind(Enum):
    """The type of a metric in Prometheus' text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of a replica or a model.

    read: yields (values of its own labels, value) from a snapshot. If it yields nothing, the metric is not exported:
        it is absent, not zero.
    labels: names of its own labels. common: names of the labels that the exporter adds.
    scale: factor from the value in the snapshot to the metric's unit.
    """

    name: str
    kind: Kind
    meaning: str
    read: Callable[[Any], Values]
    unit: str = ""
    labels: Labels = ()
    scale: float = 1
    common: Labels = field(default=("model", "version", "replica"))


def _one(read: Callable[[Any], float | Histogram | None]) -> Callable[[Any], Values]:
    def values(snapshot: Any) -> Values:
        value = read(snapshot)
        if value is not None:
            yield (), value

    return values


def _counter(name: str, meaning: str, read: Callable[[ReplicaSnapshot], float | None], **more: Any) -> Metric:
    return Metric(name=name, kind=Kind.COUNTER, meaning=meaning, read=_one(read), **more)


def _gauge(name: str, meaning: str, read: Callable[[ReplicaSnapshot], float | None], **more: Any) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, meaning=meaning, read=_one(read), **more)


def _histogram(name: str, meaning: str, read: Callable[[ReplicaSnapshot], Histogram | None], **more: Any) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, meaning=meaning, read=_one(read), **more)


def _requests(replica: ReplicaSnapshot) -> Values:
    yield ("completed", ""), replica.statistics.success.count
    yield from (dict.fromkeys(ENDINGS, 0) | replica.counts.ended).items()


def _phases(replica: ReplicaSnapshot) -> Values:
    """Yields the count and the time of each phase, under this project's names instead of those of the statistics
    (Triton's)."""
    statistics, counts, wire = replica.statistics, replica.counts, replica.wire
    for stage, spent in (
        ("decode", wire.decode),
        ("queue", statistics.queue),
        ("prepare", statistics.compute_input),
        ("copy_in", counts.copied_in),
        ("compute", statistics.compute_infer),
        ("copy_out", counts.copied_out),
        ("finish", statistics.compute_output),
        ("encode", wire.encode),
    ):
        if spent.count or stage not in ("copy_in", "copy_out"):
            yield (stage,), (spent.count, spent.ns)


def _tenants(part: str) -> Callable[[ReplicaSnapshot], Values]:
    def values(replica: ReplicaSnapshot) -> Values:
        for tenant, counts in replica.counts.tenants.items():
            yield (tenant,), getattr(counts, part)

    return values


def _quotas(part: str) -> Callable[[ReplicaSnapshot], Values]:
    def values(replica: ReplicaSnapshot) -> Values:
        if replica.quotas is not None:
            for tenant, counts in replica.quotas.tenants.items():
                value = getattr(counts, part)
                if value is not None:
                    yield (tenant,), value

    return values


def _refused(replica: ReplicaSnapshot) -> Values:
    if replica.quotas is not None:
        for tenant, counts in replica.quotas.tenants.items():
            for reason in REFUSALS:
                yield (tenant, reason), counts.refused.get(reason, 0)


def _of_cache(read: Callable[[CacheCounts], Any]) -> Callable[[ReplicaSnapshot], Any]:
    return lambda replica: None if replica.cache is None else read(replica.cache)


def _cache_requests(replica: ReplicaSnapshot) -> Values:
    if replica.cache is not None:
        for source in SOURCES:
            yield ("hit", source), replica.cache.answered[source]
        yield ("miss", ""), replica.cache.missed


def _cache_failures(replica: ReplicaSnapshot) -> Values:
    if replica.cache is not None:
        for reason in FAILURES:
            yield (reason,), replica.cache.failures[reason]


def _feature_values(process: ReplicaSnapshot | FrontSnapshot) -> Values:
    if process.features is not None:
        yield from sorted(process.features.values.items())


def _feature_failures(process: ReplicaSnapshot | FrontSnapshot) -> Values:
    if process.features is not None:
        for reason in FAILURES:
            yield (reason,), process.features.failures[reason]


def _cuts(replica: ReplicaSnapshot) -> Values:
    for reason in CutReason:
        yield (reason.name.lower(),), replica.counts.cuts[reason.name]


def _info(replica: ReplicaSnapshot) -> Values:
    yield (replica.node, replica.device, replica.door), 1


def _gpu(name: str, meaning: str, part: str, kind: Kind = Kind.GAUGE, **more: Any) -> Metric:
    def values(replica: ReplicaSnapshot) -> Values:
        for gpu in replica.gpus:
            value = getattr(gpu, part)
            if value is not None:
                yield (gpu.uuid,), value

    return Metric(name=name, kind=kind, meaning=meaning, read=values, **{"labels": ("gpu",), **more})


def _throttled(replica: ReplicaSnapshot) -> Values:
    for gpu in replica.gpus:
        if gpu.throttled_by is not None:
            for reason in THROTTLE_REASONS:
                yield (gpu.uuid, reason), reason in gpu.throttled_by


def _ecc_errors(replica: ReplicaSnapshot) -> Values:
    for gpu in replica.gpus:
        for kind, count in (("corrected", gpu.ecc_corrected), ("uncorrected", gpu.ecc_uncorrected)):
            if count is not None:
                yield (gpu.uuid, kind), count


S: dict[str, Any] = {"unit": "seconds", "scale": NS}
B: dict[str, Any] = {"unit": "bytes"}
R: dict[str, Any] = {"unit": "ratio"}

# Of replicas that fill inputs with features, and of the front, which answers clients that ask for them.
OF_FEATURES: tuple[Metric, ...] = (
    Metric(
        name="headway_features_values",
        kind=Kind.COUNTER,
        labels=("view", "reason"),
        read=_feature_values,
        meaning="Answers for single features, by their reason: present, missing, expired (too old), other version "
        '(of the view), unreadable, unavailable. The front, which answers clients, has `replica="front"` and no model.',
    ),
    _histogram(
        "headway_features_look_up_seconds",
        "Duration of look-ups in Redis. Requests that arrive together share one.",
        lambda p: None if p.features is None else p.features.look_ups,
        **S,
    ),
    Metric(
        name="headway_features_failures",
        kind=Kind.COUNTER,
        labels=("reason",),
        read=_feature_failures,
        meaning="Entities that were not looked up: open (Redis is not asked after repeated failures), slow, garbage, "
        "or failed. Their values are answered as `unavailable`.",
    ),
)

OF_REPLICA: tuple[Metric, ...] = (
    # Traffic
    Metric(
        name="headway_requests",
        kind=Kind.COUNTER,
        labels=("outcome", "reason"),
        read=_requests,
        meaning="Requests by outcome (completed, failed, expired, cancelled or rejected) and reason (of a failure or "
        "rejection). A message that cannot be decoded is not counted, because it never becomes a request.",
    ),
    _counter("headway_predictions", "Rows computed; a prediction is one row.", lambda r: r.statistics.inference_count),
    _histogram(
        "headway_request_seconds",
        "Time from a request's arrival in the queue to its answer, for completed requests.",
        lambda r: r.counts.request_ns,
        **S,
    ),
    _histogram(
        "headway_queue_wait_seconds",
        "Time from a request's arrival in the queue until its batch was cut.",
        lambda r: r.counts.queue_ns,
        **S,
    ),
    Metric(
        name="headway_stage_seconds",
        kind=Kind.SUMMARY,
        labels=("stage",),
        read=_phases,
        meaning="Time of requests by phase: decode (from the complete message to the queue), queue, prepare (collate "
        "and launch), copy_in and copy_out (to the device and back; only if the device has a clock), compute, finish "
        "(split, and return to the event loop), encode. A batch's time counts for each of its requests.",
        **S,
    ),
    # Models that generate
    _histogram(
        "headway_first_answer_seconds",
        "Time from a request's arrival to its first answer, for generating models.",
        lambda r: r.counts.first_ns,
        **S,
    ),
    _counter("headway_answers", "Answers of generating models, for example tokens.", lambda r: r.counts.answers),
    # The queue now
    _gauge("headway_queued_requests", "Requests waiting now.", lambda r: r.queued),
    _gauge("headway_queued_rows", "Rows waiting now.", lambda r: r.queued_rows),
    _gauge("headway_in_flight_requests", "Requests in a batch that is not answered yet.", lambda r: r.in_flight),
    _gauge(
        "headway_expected_wait_seconds",
        "Time that the lanes need for all waiting requests.",
        lambda r: r.expected_wait_ns,
        **S,
    ),
    _gauge("headway_ready", "1 while the replica accepts requests.", lambda r: r.ready),
    # Batches
    Metric(
        name="headway_batches",
        kind=Kind.COUNTER,
        labels=("reason",),
        read=_cuts,
        meaning="Batches by the reason why they were cut: idle (the lane was idle), full (all the rows that pay off), "
        "deadline (one more row would have made a request late), lane_ready (the lane was about to be free).",
    ),
    _histogram("headway_batch_rows", "Rows per batch, without padding.", lambda r: r.counts.batch_rows),
    _histogram(
        "headway_batch_seconds",
        "Time that a batch occupied its lane. The sum is the busy time of the lanes.",
        lambda r: r.counts.batch_ns,
        **S,
    ),
    _histogram(
        "headway_batch_bound_ratio",
        "That time divided by the planned time of the batch; above 1 the batch took longer than planned.",
        lambda r: r.counts.bound_shares,
        **R,
    ),
    _counter("headway_cells_asked", "Rows times length, without padding.", lambda r: r.counts.cells_asked),
    _counter(
        "headway_cells_computed",
        "Rows times length, with padding. The padding waste is 1 - asked / computed.",
        lambda r: r.counts.cells_computed,
    ),
    _gauge("headway_largest_batch_rows", "The most rows a batch may have now.", lambda r: r.largest_batch_rows),
    _gauge(
        "headway_useful_batch_rows",
        "Rows beyond which throughput hardly rises (the knee).",
        lambda r: r.useful_batch_rows,
    ),
    _gauge(
        "headway_bound_margin_ratio",
        "By how much the latency model's bound exceeds its expected time, as a share of that time.",
        lambda r: r.bound_margin,
        **R,
    ),
    _gauge("headway_bound_coverage_ratio", "Share of batches within their bound.", lambda r: r.bound_coverage, **R),
    _gauge(
        "headway_drift_ratio",
        "Present batch times relative to those first learned; above 1 the device has become slower.",
        lambda r: r.drift,
        **R,
    ),
    _gauge(
        "headway_latency_budget_seconds",
        "The latency budget in force.",
        lambda r: None if r.budget_ms is None else r.budget_ms / 1e3,
        unit="seconds",
    ),
    # Lanes
    _gauge("headway_lanes", "Lanes, each with a loaded model.", lambda r: r.lanes),
    _gauge("headway_batches_in_flight", "Batches on the lanes now.", lambda r: r.batches_in_flight),
    _counter("headway_lanes_lost", "Lanes lost.", lambda r: r.counts.lanes_lost),
    _counter(
        "headway_batch_limit_halvings",
        "How often the largest batch was halved because the device ran out of memory.",
        lambda r: r.counts.limit_halvings,
    ),
    # Tenants
    Metric(
        name="headway_tenant_requests",
        kind=Kind.COUNTER,
        labels=("tenant",),
        read=_tenants("requests"),
        meaning="Requests that ended, by tenant. The tenants in the settings and about twenty more have their own "
        "name; all others are `other`. Requests without a tenant are `none`.",
    ),
    Metric(
        name="headway_tenant_device_seconds",
        kind=Kind.COUNTER,
        labels=("tenant",),
        read=_tenants("device_ns"),
        meaning="Lane time, by tenant.",
        **S,
    ),
    # Quotas, where the settings have tenants
    Metric(
        name="headway_tenant_admitted",
        kind=Kind.COUNTER,
        labels=("tenant",),
        read=_quotas("admitted"),
        meaning="Requests that were within their tenant's quota. Those of tenants without a name of their own are "
        "`other`, here and below. Absent without tenants in the settings, as are the next three.",
    ),
    Metric(
        name="headway_tenant_refused",
        kind=Kind.COUNTER,
        labels=("tenant", "reason"),
        read=_refused,
        meaning="Requests beyond their tenant's quota: rate (of a minute), day, or concurrent (too many at once). "
        "They never reach the queue, so no other metric counts them.",
    ),
    Metric(
        name="headway_tenant_quota_remaining",
        kind=Kind.GAUGE,
        labels=("tenant",),
        read=_quotas("remaining"),
        meaning="How many requests the tenant may send at once now, as far as the replica knows. Where replicas share "
        "quotas in Redis, use `min by (tenant)`, else `sum by (tenant)`.",
    ),
    _gauge(
        "headway_quota_degraded",
        "1 while the shared store of quotas does not answer, so that the replica keeps to its own part of each limit.",
        lambda r: None if r.quotas is None else r.quotas.degraded,
    ),
    # The prediction cache, of models that have one
    Metric(
        name="headway_cache_requests",
        kind=Kind.COUNTER,
        labels=("result", "source"),
        read=_cache_requests,
        meaning="Requests by what the prediction cache had for them: hit or miss. source: memory (of the replica), "
        "shared (Redis), or flight (an equal request was being computed). Absent without a cache, as are those below.",
    ),
    _histogram(
        "headway_cache_look_up_seconds",
        "Duration of look-ups in Redis. Requests that arrive together share one.",
        _of_cache(lambda c: c.look_ups),
        **S,
    ),
    Metric(
        name="headway_cache_failures",
        kind=Kind.COUNTER,
        labels=("reason",),
        read=_cache_failures,
        meaning="Look-ups, and answers to store, with which Redis was of no use: open (not asked after repeated "
        "failures), slow, busy (too much waits for it already), garbage, or failed. Each look-up counts as a miss.",
    ),
    _gauge("headway_cache_answers", "Answers in the replica's memory.", _of_cache(lambda c: c.answers)),
    _gauge("headway_cache_bytes", "Memory of these answers.", _of_cache(lambda c: c.bytes), **B),
    _counter(
        "headway_cache_saved_seconds",
        "Lane time that computing the answers from the cache would have taken.",
        _of_cache(lambda c: c.saved_ns),
        **S,
    ),
    _counter(
        "headway_cache_saved_cost",
        "Cost of that time by the prices in the settings, in their currency.",
        lambda r: r.saved_cost,
        unit="currency",
    ),
    *OF_FEATURES,
    # Process and money
    Metric(
        name="headway_replica_info",
        kind=Kind.GAUGE,
        labels=("node", "device", "door"),
        read=_info,
        meaning="Always 1. The labels are the replica's node and device, and whether the fast door is open.",
    ),
    _gauge("headway_uptime_seconds", "Time since the replica started.", lambda r: r.uptime_ns, **S),
    _counter("headway_cpu_seconds", "CPU time of the replica's process.", lambda r: r.cpu_ns, **S),
    _gauge("headway_memory_bytes", "Resident memory of the replica's process.", lambda r: r.memory_bytes, **B),
    _counter(
        "headway_cost",
        "Cost of the replica by the prices in the settings, in their currency.",
        lambda r: r.cost,
        unit="currency",
    ),
    _gauge(
        "headway_cost_per_thousand_predictions",
        "Cost per thousand rows since the replica started. For a window, divide the increase of cost by that of "
        "predictions.",
        lambda r: r.cost_per_thousand,
        unit="currency",
    ),
    # GPUs
    _gpu("headway_gpu_busy_ratio", "Share of time with a kernel on the GPU.", "busy_ratio", **R),
    _gpu("headway_gpu_memory_used_bytes", "GPU memory used by all processes.", "memory_used_bytes", **B),
    _gpu("headway_gpu_memory_total_bytes", "Total GPU memory.", "memory_total_bytes", **B),
    _gpu("headway_gpu_own_memory_bytes", "GPU memory used by the replica's process.", "own_memory_bytes", **B),
    _gpu(
        "headway_gpu_sm_active_ratio",
        "Share of active streaming multiprocessors (Hopper and newer).",
        "sm_active_ratio",
        **R,
    ),
    _gpu(
        "headway_gpu_tensor_active_ratio",
        "Share of active tensor cores (Hopper and newer).",
        "tensor_active_ratio",
        **R,
    ),
    _gpu(
        "headway_gpu_dram_busy_ratio",
        "Share of the memory bandwidth in use (Hopper and newer).",
        "dram_busy_ratio",
        **R,
    ),
    _gpu("headway_gpu_power_watts", "Power drawn.", "power_watts", unit="watts"),
    _gpu("headway_gpu_power_limit_watts", "Power limit.", "power_limit_watts", unit="watts"),
    _gpu(
        "headway_gpu_energy_joules",
        "Energy used since the driver was loaded.",
        "energy_joules",
        Kind.COUNTER,
        unit="joules",
    ),
    _gpu("headway_gpu_temperature_celsius", "Temperature.", "temperature_celsius", unit="celsius"),
    _gpu("headway_gpu_sm_clock_hertz", "Clock of the multiprocessors.", "sm_clock_hertz", unit="hertz"),
    _gpu("headway_gpu_memory_clock_hertz", "Clock of the memory.", "memory_clock_hertz", unit="hertz"),
    Metric(
        name="headway_gpu_throttled",
        kind=Kind.GAUGE,
        labels=("gpu", "reason"),
        read=_throttled,
        meaning="1 while the GPU's clocks are reduced for this reason, else 0.",
    ),
    Metric(
        name="headway_gpu_ecc_errors",
        kind=Kind.COUNTER,
        labels=("gpu", "kind"),
        read=_ecc_errors,
        meaning="Memory errors since the driver was loaded, corrected or uncorrected.",
    ),
    _gpu("headway_gpu_divided", "1 if the card is divided into parts (MIG), else 0.", "mig"),
)


def _model_gauge(
    name: str, meaning: str, read: Callable[[ModelSnapshot], float | None], labels: Labels = ("model", "version")
) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, meaning=meaning, read=_one(read), common=labels)


OF_MODEL: tuple[Metric, ...] = (
    _model_gauge("headway_model_ready", "1 while the model accepts requests.", lambda m: m.state == "READY"),
    _model_gauge("headway_replicas_running", "Running replicas.", lambda m: m.running),
    _model_gauge("headway_replicas_wanted", "The target: how many replicas should run.", lambda m: m.wanted),
    _model_gauge("headway_replicas_limit", "The most replicas; absent if their number is fixed.", lambda m: m.limit),
    _model_gauge("headway_replicas_silent", "Replicas that did not send their metrics in time.", lambda m: m.silent),
)


def _triton(name: str, meaning: str, read: Callable[[ReplicaSnapshot], Values], **more: Any) -> Metric:
    """Returns an untyped metric, because Prometheus' format requires `_total` after a counter's name, which Triton's
    names lack."""
    return Metric(name=name, kind=Kind.UNTYPED, meaning=meaning, read=read, **more)


def _failures(replica: ReplicaSnapshot) -> Values:
    """Yields the requests that were not completed, by Triton's reasons."""
    failures = dict.fromkeys(("OTHER", "BACKEND", "CANCELED", "REJECTED"), 0)
    for (outcome, reason), count in replica.counts.ended.items():
        kinds = {"rejected": "REJECTED", "expired": "REJECTED", "cancelled": "CANCELED"}
        failures[kinds.get(outcome, "OTHER" if reason == "invalid_input" else "BACKEND")] += count
    for kind, count in failures.items():
        yield (kind,), count


def _spent(name: str, what: str, read: Callable[[ReplicaSnapshot], Duration]) -> Metric:
    return _triton(
        f"nv_inference_{name}_duration_us",
        what,
        _one(lambda r: read(r).ns),
        unit="microseconds",
        scale=NS_TO_US,
    )


def _gpu_of_triton(name: str, meaning: str, part: str, **more: Any) -> Metric:
    return _gpu(f"nv_{name}", meaning, part, Kind.UNTYPED, labels=("gpu_uuid",), **more)


OF_TRITON: tuple[Metric, ...] = (
    _triton("nv_inference_request_success", "Completed requests.", _one(lambda r: r.statistics.success.count)),
    _triton("nv_inference_request_failure", "All other requests.", _failures, labels=("reason",)),
    _triton("nv_inference_count", "Rows computed.", _one(lambda r: r.statistics.inference_count)),
    _triton("nv_inference_exec_count", "Forward passes.", _one(lambda r: r.statistics.execution_count)),
    _triton("nv_inference_pending_request_count", "Requests waiting now.", _one(lambda r: r.queued)),
    _spent("request", "Total time from arrival to answer.", lambda r: r.statistics.success),
    _spent("queue", "Total time in the queue.", lambda r: r.statistics.queue),
    _spent("compute_input", "Total time of the phase prepare.", lambda r: r.statistics.compute_input),
    _spent("compute_infer", "Total time of the phase compute.", lambda r: r.statistics.compute_infer),
    _spent("compute_output", "Total time of the phase finish.", lambda r: r.statistics.compute_output),
    _gpu_of_triton("gpu_utilization", "Share of time with a kernel on the GPU.", "busy_ratio", unit="ratio"),
    _gpu_of_triton("gpu_memory_total_bytes", "Total GPU memory.", "memory_total_bytes", unit="bytes"),
    _gpu_of_triton("gpu_memory_used_bytes", "GPU memory in use.", "memory_used_bytes", unit="bytes"),
    _gpu_of_triton("gpu_power_usage", "Power drawn.", "power_watts", unit="watts"),
    _gpu_of_triton("gpu_power_limit", "Power limit.", "power_limit_watts", unit="watts"),
    _gpu_of_triton("energy_consumption", "Energy used since the driver was loaded.", "energy_joules", unit="joules"),
)


def full_name(metric: Metric) -> str:
    """Returns the name that Prometheus queries use: with `_total` for counters."""
    return f"{metric.name}_total" if metric.kind is Kind.COUNTER else metric.name


def rows(metrics: tuple[Metric, ...] = (*OF_REPLICA, *OF_MODEL, *OF_TRITON)) -> Iterator[tuple[str, ...]]:
    """Yields (name, kind, unit, own labels, meaning) of each metric."""
    for metric in metrics:
        yield full_name(metric), metric.kind.value, metric.unit, ", ".join(metric.labels), metric.meaning


def markdown() -> str:
    """Returns the tables of docs/metrics.md."""
    lines = []
    for title, metrics in (("Replicas", OF_REPLICA), ("Models", OF_MODEL), ("Triton's names", OF_TRITON)):
        lines += [f"### {title}", "| Metric | Kind | Unit | Labels | Meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{name}` | {kind} | {unit} | {labels} | {meaning} |"
            for name, kind, unit, labels, meaning in rows(metrics)
        ]
        lines.append("")
    return "\n".join(lines)
