"""The one table of metrics: name, kind, unit, labels, meaning, and where its value is read in a snapshot.

A replica's metrics carry `model`, `version` and `replica` beside their own labels: a counter then only ever grows, and
ends with its replica. docs/metrics.md is this table. Triton's names follow at the end, so that its dashboards work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from serving.core.batch import CutReason
from serving.core.statistics import Duration
from serving.telemetry.gpu import THROTTLE_REASONS
from serving.telemetry.histogram import Histogram
from serving.telemetry.recorder import ENDINGS
from serving.telemetry.snapshot import ModelSnapshot, ReplicaSnapshot

Labels = tuple[str, ...]
Values = Iterator[tuple[Labels, Any]]  # a number, a Histogram for histograms, (count, sum) for summaries
NS = 1e-9
NS_TO_US = 1e-3


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """read: its values by its own labels, from a snapshot; `scale` turns them into the metric's unit. What yields
    nothing is not exported: absent, not zero."""

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


def _histogram(name: str, meaning: str, read: Callable[[ReplicaSnapshot], Histogram], **more: Any) -> Metric:
    return Metric(name=name, kind=Kind.HISTOGRAM, meaning=meaning, read=_one(read), **more)


def _requests(replica: ReplicaSnapshot) -> Values:
    yield ("completed", ""), replica.statistics.success.count
    yield from (dict.fromkeys(ENDINGS, 0) | replica.counts.ended).items()


def _stages(replica: ReplicaSnapshot) -> Values:
    """The protocol's names for the stages of a batch are Triton's; these are what they are here."""
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

OF_REPLICA: tuple[Metric, ...] = (
    # Traffic
    Metric(
        name="headway_requests",
        kind=Kind.COUNTER,
        labels=("outcome", "reason"),
        read=_requests,
        meaning="Requests that ended: completed, failed, expired, cancelled or rejected, and why they failed or were "
        "refused. Messages that could not be read never become requests.",
    ),
    _counter("headway_predictions", "Rows computed; what is paid for.", lambda r: r.statistics.inference_count),
    _histogram(
        "headway_request_seconds",
        "From a request's arrival in the queue to its answer, of completed requests.",
        lambda r: r.counts.request_ns,
        **S,
    ),
    _histogram(
        "headway_queue_wait_seconds", "The part of that before its batch was cut.", lambda r: r.counts.queue_ns, **S
    ),
    Metric(
        name="headway_stage_seconds",
        kind=Kind.SUMMARY,
        labels=("stage",),
        read=_stages,
        meaning="Where requests spent their time: decode (from the whole message to the queue), queue, prepare "
        "(collate, and start what the device is to do), copy_in and copy_out (to the device and back; only where that "
        "has a clock), compute, finish (split, and back to the event loop), encode. A batch's time counts for each of "
        "its requests.",
        **S,
    ),
    # Models that generate
    _histogram(
        "headway_first_answer_seconds",
        "From a request's arrival to the first of its answers, of models that generate.",
        lambda r: r.counts.first_ns,
        **S,
    ),
    _counter("headway_answers", "Answers that models gave which generate: tokens, say.", lambda r: r.counts.answers),
    # The queue now
    _gauge("headway_queued_requests", "Requests that wait now.", lambda r: r.queued),
    _gauge("headway_queued_rows", "Rows that wait now.", lambda r: r.queued_rows),
    _gauge("headway_in_flight_requests", "Requests whose batch was cut and not answered yet.", lambda r: r.in_flight),
    _gauge("headway_expected_wait_seconds", "What waits now will take the lanes.", lambda r: r.expected_wait_ns, **S),
    _gauge("headway_ready", "1 while the replica takes requests.", lambda r: r.ready),
    # Batches
    Metric(
        name="headway_batches",
        kind=Kind.COUNTER,
        labels=("reason",),
        read=_cuts,
        meaning="Batches, by why they left with what they had: idle (the lane was idle), full (all the rows that pay "
        "off), deadline (one more row would have made a member late), lane_ready (the lane was about to be free).",
    ),
    _histogram("headway_batch_rows", "Rows asked for per batch, without padding.", lambda r: r.counts.batch_rows),
    _histogram(
        "headway_batch_seconds",
        "How long a batch occupied its lane. The sum is the time the lanes were busy.",
        lambda r: r.counts.batch_ns,
        **S,
    ),
    _histogram(
        "headway_batch_bound_ratio",
        "That time in parts of what was planned for it: above 1 it took longer.",
        lambda r: r.counts.bound_shares,
        **R,
    ),
    _counter("headway_cells_asked", "Rows times their length, as they were sent.", lambda r: r.counts.cells_asked),
    _counter(
        "headway_cells_computed",
        "Rows times length as computed, padding included: 1 - asked / computed is the waste.",
        lambda r: r.counts.cells_computed,
    ),
    _gauge("headway_largest_batch_rows", "The most rows a batch may have now.", lambda r: r.largest_batch_rows),
    _gauge("headway_useful_batch_rows", "Rows beyond which a batch gets no cheaper.", lambda r: r.useful_batch_rows),
    _gauge(
        "headway_bound_margin_ratio",
        "By how much the latency model's bound exceeds the time it expects.",
        lambda r: r.bound_margin,
        **R,
    ),
    _gauge("headway_bound_coverage_ratio", "Share of batches within their bound.", lambda r: r.bound_coverage, **R),
    _gauge("headway_drift_ratio", "How much slower than first learned everything is now.", lambda r: r.drift, **R),
    _gauge(
        "headway_latency_budget_seconds",
        "The latency budget in force.",
        lambda r: None if r.budget_ms is None else r.budget_ms / 1e3,
        unit="seconds",
    ),
    # Lanes
    _gauge("headway_lanes", "Lanes, each with a loaded model.", lambda r: r.lanes),
    _gauge("headway_batches_in_flight", "Batches on the lanes now.", lambda r: r.batches_in_flight),
    _counter("headway_lanes_lost", "Lanes given up.", lambda r: r.counts.lanes_lost),
    _counter(
        "headway_batch_limit_halvings",
        "How often the device ran out of memory and batches were made smaller.",
        lambda r: r.counts.limit_halvings,
    ),
    # Tenants
    Metric(
        name="headway_tenant_requests",
        kind=Kind.COUNTER,
        labels=("tenant",),
        read=_tenants("requests"),
        meaning="Requests that ended, by tenant. The tenants of the settings and some twenty more have their own name, "
        "all further ones are `other`; `none` named no tenant.",
    ),
    Metric(
        name="headway_tenant_device_seconds",
        kind=Kind.COUNTER,
        labels=("tenant",),
        read=_tenants("device_ns"),
        meaning="Time on the lanes, by tenant.",
        **S,
    ),
    # Process and money
    Metric(
        name="headway_replica_info",
        kind=Kind.GAUGE,
        labels=("node", "device", "door"),
        read=_info,
        meaning="Always 1: where the replica runs, on what, and whether the fast door is open.",
    ),
    _gauge("headway_uptime_seconds", "Since the replica began.", lambda r: r.uptime_ns, **S),
    _counter("headway_cpu_seconds", "CPU time of the replica's process.", lambda r: r.cpu_ns, **S),
    _gauge("headway_memory_bytes", "Resident memory of the replica's process.", lambda r: r.memory_bytes, **B),
    _counter(
        "headway_cost",
        "What the replica has cost, by the prices of the settings, in their currency.",
        lambda r: r.cost,
        unit="currency",
    ),
    _gauge(
        "headway_cost_per_thousand_predictions",
        "Since the replica began. For a window: the increase of cost over that of predictions.",
        lambda r: r.cost_per_thousand,
        unit="currency",
    ),
    # GPUs
    _gpu("headway_gpu_busy_ratio", "Share of time with a kernel on the GPU.", "busy_ratio", **R),
    _gpu("headway_gpu_memory_used_bytes", "GPU memory in use, by everybody.", "memory_used_bytes", **B),
    _gpu("headway_gpu_memory_total_bytes", "GPU memory there is.", "memory_total_bytes", **B),
    _gpu("headway_gpu_own_memory_bytes", "GPU memory in use by the replica's process.", "own_memory_bytes", **B),
    _gpu(
        "headway_gpu_sm_active_ratio", "Share of its processors that work (Hopper and newer).", "sm_active_ratio", **R
    ),
    _gpu("headway_gpu_tensor_active_ratio", "Of its tensor cores (Hopper and newer).", "tensor_active_ratio", **R),
    _gpu("headway_gpu_dram_busy_ratio", "Of its memory bandwidth (Hopper and newer).", "dram_busy_ratio", **R),
    _gpu("headway_gpu_power_watts", "Power drawn.", "power_watts", unit="watts"),
    _gpu("headway_gpu_power_limit_watts", "Power it may draw.", "power_limit_watts", unit="watts"),
    _gpu(
        "headway_gpu_energy_joules",
        "Energy used since the driver was loaded.",
        "energy_joules",
        Kind.COUNTER,
        unit="joules",
    ),
    _gpu("headway_gpu_temperature_celsius", "Temperature.", "temperature_celsius", unit="celsius"),
    _gpu("headway_gpu_sm_clock_hertz", "Clock of its processors.", "sm_clock_hertz", unit="hertz"),
    _gpu("headway_gpu_memory_clock_hertz", "Clock of its memory.", "memory_clock_hertz", unit="hertz"),
    Metric(
        name="headway_gpu_throttled",
        kind=Kind.GAUGE,
        labels=("gpu", "reason"),
        read=_throttled,
        meaning="1 while its clocks are lower than they could be, for this reason.",
    ),
    Metric(
        name="headway_gpu_ecc_errors",
        kind=Kind.COUNTER,
        labels=("gpu", "kind"),
        read=_ecc_errors,
        meaning="Errors of its memory, corrected or not, since the driver was loaded.",
    ),
    _gpu("headway_gpu_divided", "1 where the card is divided into parts (MIG), else 0.", "mig"),
)


def _model_gauge(
    name: str, meaning: str, read: Callable[[ModelSnapshot], float | None], labels: Labels = ("model",)
) -> Metric:
    return Metric(name=name, kind=Kind.GAUGE, meaning=meaning, read=_one(read), common=labels)


OF_MODEL: tuple[Metric, ...] = (
    _model_gauge("headway_model_ready", "1 while the model can be asked.", lambda m: m.state == "READY"),
    _model_gauge("headway_replicas_running", "Replicas that run.", lambda m: m.running),
    _model_gauge("headway_replicas_wanted", "Replicas that are to run.", lambda m: m.wanted),
    _model_gauge("headway_replicas_limit", "The most there may be; absent where fixed.", lambda m: m.limit),
    _model_gauge("headway_replicas_silent", "Replicas that did not tell their metrics in time.", lambda m: m.silent),
)


def _triton(name: str, meaning: str, read: Callable[[ReplicaSnapshot], Values], **more: Any) -> Metric:
    """Untyped: Prometheus' format wants `_total` behind every counter, and Triton's names have none."""
    return Metric(name=name, kind=Kind.UNTYPED, meaning=meaning, read=read, **more)


def _failures(replica: ReplicaSnapshot) -> Values:
    """By Triton's reasons."""
    found = dict.fromkeys(("OTHER", "BACKEND", "CANCELED", "REJECTED"), 0)
    for (outcome, reason), count in replica.counts.ended.items():
        kinds = {"rejected": "REJECTED", "expired": "REJECTED", "cancelled": "CANCELED"}
        found[kinds.get(outcome, "OTHER" if reason == "invalid_input" else "BACKEND")] += count
    for kind, count in found.items():
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
    _triton("nv_inference_request_success", "Completed.", _one(lambda r: r.statistics.success.count)),
    _triton("nv_inference_request_failure", "All other requests.", _failures, labels=("reason",)),
    _triton("nv_inference_count", "Rows computed.", _one(lambda r: r.statistics.inference_count)),
    _triton("nv_inference_exec_count", "Forward passes.", _one(lambda r: r.statistics.execution_count)),
    _triton("nv_inference_pending_request_count", "Requests that wait.", _one(lambda r: r.queued)),
    _spent("request", "Arrival to answer, all together.", lambda r: r.statistics.success),
    _spent("queue", "In the queue.", lambda r: r.statistics.queue),
    _spent("compute_input", "Preparing.", lambda r: r.statistics.compute_input),
    _spent("compute_infer", "Computing.", lambda r: r.statistics.compute_infer),
    _spent("compute_output", "Finishing.", lambda r: r.statistics.compute_output),
    _gpu_of_triton("gpu_utilization", "Busy share of the GPU.", "busy_ratio", unit="ratio"),
    _gpu_of_triton("gpu_memory_total_bytes", "GPU memory there is.", "memory_total_bytes", unit="bytes"),
    _gpu_of_triton("gpu_memory_used_bytes", "GPU memory in use.", "memory_used_bytes", unit="bytes"),
    _gpu_of_triton("gpu_power_usage", "Power drawn.", "power_watts", unit="watts"),
    _gpu_of_triton("gpu_power_limit", "Power limit.", "power_limit_watts", unit="watts"),
    _gpu_of_triton("energy_consumption", "Since the driver was loaded.", "energy_joules", unit="joules"),
)


def full_name(metric: Metric) -> str:
    """As it is asked for in a query."""
    return f"{metric.name}_total" if metric.kind is Kind.COUNTER else metric.name


def rows(metrics: tuple[Metric, ...] = (*OF_REPLICA, *OF_MODEL, *OF_TRITON)) -> Iterator[tuple[str, ...]]:
    """(name, kind, unit, own labels, meaning) of each."""
    for metric in metrics:
        yield full_name(metric), metric.kind.value, metric.unit, ", ".join(metric.labels), metric.meaning


def markdown() -> str:
    """The tables of docs/metrics.md."""
    lines = []
    for title, metrics in (("Replicas", OF_REPLICA), ("Models", OF_MODEL), ("Triton's names", OF_TRITON)):
        lines += [f"### {title}", "| Metric | Kind | Unit | Labels | Meaning |", "|---|---|---|---|---|"]
        lines += [
            f"| `{name}` | {kind} | {unit} | {labels} | {meaning} |"
            for name, kind, unit, labels, meaning in rows(metrics)
        ]
        lines.append("")
    return "\n".join(lines)
