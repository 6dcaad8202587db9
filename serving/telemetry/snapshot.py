"""What one replica, one model and the whole cluster are like at an instant: plain values that travel between processes.

A replica tells of itself in a `ReplicaSnapshot`; whoever shows or exports something reads a `ClusterSnapshot`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from serving.core.statistics import ModelStatistics, WireTimes
from serving.telemetry.recorder import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """One GPU as its driver sees it. What the driver does not tell is None; a machine without a GPU has no reading.

    name: the product's.
    busy_ratio: the share of time with any kernel on the GPU, however small: 1.0 does not mean that it is full.
    own_memory_bytes: of this process.
    energy_joules, ecc_corrected, ecc_uncorrected: since the driver was loaded.
    throttled_by: why its clocks are lower than they could be.
    mig: the card is divided into parts.
    sm_active_ratio, tensor_active_ratio, dram_busy_ratio: how much of the GPU works, on average over the last second;
        from GPM, on Hopper and newer.
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
    """replica, node: as Ray names them; node is the address.

    expected_wait_ns: how long the lanes need for what waits.
    bound_margin, bound_coverage: of the latency model: by how much a batch's bound exceeds its expected time, as a
        share of it, and the share of batches that kept within.
    predictions: how often which class was the best, in a sample; empty without labels.
    wire: what messages cost beside the engine.
    price_per_hour: of all this replica holds, in the currency of the settings; None without a price.
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

    @property
    def cost(self) -> float | None:
        """What it has cost since it started."""
        return None if self.price_per_hour is None else self.price_per_hour * self.uptime_ns / 3.6e12

    @property
    def cost_per_thousand(self) -> float | None:
        """Per thousand predictions (rows) since it started; None before the first."""
        rows = self.statistics.inference_count
        return None if self.cost is None or not rows else 1000 * self.cost / rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSnapshot:
    """One model: what Ray says of it, and what its replicas told.

    silent: replicas that are there and did not tell in time.
    wanted, limit: replicas that Ray is to run, and the most it may; limit is None where their number is fixed.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """took_ns: how long it took to ask everybody."""

    models: tuple[ModelSnapshot, ...]
    took_ns: int

    def of_node(self, node: str) -> "ClusterSnapshot":
        """The same with the replicas of one node only."""
        here = (
            replace(model, replicas=tuple(replica for replica in model.replicas if replica.node == node))
            for model in self.models
        )
        return replace(self, models=tuple(here))
