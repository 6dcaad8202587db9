"""Snapshots of a replica, a model and the whole cluster: plain values that are sent between processes.

A replica describes itself in a `ReplicaSnapshot`; dashboards and exporters read a `ClusterSnapshot`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from serving.core.statistics import ModelStatistics, WireTimes
from serving.telemetry.cache import CacheCounts
from serving.telemetry.features import FeatureCounts
from serving.telemetry.quotas import QuotaReading
from serving.telemetry.recorder import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """The state of one GPU as its driver reports it; None for values that the driver does not report.

    name: the product name.
    busy_ratio: share of time with any kernel on the GPU, however small; 1.0 does not mean that it is fully used.
    own_memory_bytes: memory used by this process.
    energy_joules, ecc_corrected, ecc_uncorrected: totals since the driver was loaded.
    throttled_by: reasons for reduced clocks, keys of `gpu.THROTTLE_REASONS`.
    mig: whether the card is divided into parts (MIG).
    sm_active_ratio, tensor_active_ratio, dram_busy_ratio: average use of the streaming multiprocessors, the tensor
        cores and the memory bandwidth over the last second; from GPM, on Hopper and newer.
    """

    uuid: str
    name: str | None = None
    busy_ratio: float | None
    memory_used_bytes: int
    memory_total_bytes: int
    own_memory_bytes: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperature_celsius: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    throttled_by: tuple[str, ...] | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    mig: bool | None = None
    sm_active_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_busy_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSnapshot:
    """The state of one replica.

    replica, node: Ray's id of the replica and the address of its node.
    expected_wait_ns: how long the lanes need for all waiting requests.
    bound_margin, bound_coverage: by how much the latency model's bound of a batch exceeds its expected time, as a share
        of that time; and the share of batches within their bounds.
    drift: the latency model's drift factor. budget_ms: the latency budget in force; None without one.
    cpu_ns, memory_bytes: CPU time and resident memory of the process.
    predictions: number of predictions by class in a sample; empty without labels.
    wire: times of decoding and encoding messages.
    price_per_hour: price of the replica's resources in the currency of the settings; None without a price.
    quotas: the quotas of tenants; None without tenants in the settings. cache: None for a model without a cache.
    features: what was read for requests; None for a model without features.
    """

    model: str
    version: str
    replica: str
    node: str
    device: str
    door: str
    ready: bool
    uptime_ns: int
    received: int
    queued: int
    in_flight: int
    queued_rows: int
    expected_wait_ns: int
    lanes: int
    batches_in_flight: int
    largest_batch_rows: int
    useful_batch_rows: int
    bound_margin: float
    bound_coverage: float
    drift: float
    budget_ms: float | None
    cpu_ns: int
    memory_bytes: int
    price_per_hour: float | None
    statistics: ModelStatistics
    counts: Counts
    gpus: tuple[GpuReading, ...] = ()
    predictions: Mapping[str, int] = field(default_factory=dict)
    wire: WireTimes = field(default_factory=WireTimes)
    quotas: QuotaReading | None = None
    cache: CacheCounts | None = None
    features: FeatureCounts | None = None

    @property
    def cost(self) -> float | None:
        """The cost since the replica started; None without a price."""
        return None if self.price_per_hour is None else self.price_per_hour * self.uptime_ns / 3.6e12

    @property
    def saved_cost(self) -> float | None:
        """The cost of the device time that the cache has saved; None without a cache or a price."""
        if self.cache is None or self.price_per_hour is None:
            return None
        return self.price_per_hour * self.cache.saved_ns / self.lanes / 3.6e12

    @property
    def cost_per_thousand(self) -> float | None:
        """The cost per thousand predictions (rows) since the start; None before the first or without a price."""
        rows = self.statistics.inference_count
        return None if self.cost is None or not rows else 1000 * self.cost / rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSnapshot:
    """The state of one version of a model as reported by Ray, and the snapshots of its replicas.

    application: what serves it, "" for the one of the model's name.
    silent: number of running replicas that did not answer in time.
    wanted, limit: target of replicas, and the largest possible target; limit is None if the number is fixed.
    """

    name: str
    version: str
    state: str
    reason: str
    running: int
    wanted: int
    limit: int | None
    silent: int
    replicas: tuple[ReplicaSnapshot, ...]
    application: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "application", self.application or self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSnapshot:
    """The counts of the front. features: what was read for clients; None without feature views."""

    node: str
    features: FeatureCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """The state of all models. took_ns: time that collecting the snapshots took. front: None if it is elsewhere."""

    models: tuple[ModelSnapshot, ...]
    took_ns: int
    front: FrontSnapshot | None = None

    def of_node(self, node: str) -> "ClusterSnapshot":
        """Returns a snapshot with only the replicas of one node."""
        here = (
            replace(model, replicas=tuple(replica for replica in model.replicas if replica.node == node))
            for model in self.models
        )
        front = self.front if self.front is not None and self.front.node == node else None
        return replace(self, models=tuple(here), front=front)
