"""Takes snapshots of this replica: the state and counts of its engine as plain values."""

import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from serving.cluster.replica.engines import AnyEngine
from serving.cluster.replica.http_door import entrance
from serving.core.backend import Backend
from serving.core.clock import SystemClock
from serving.core.statistics import WireTimes
from serving.runtime.generation import GeneratingEngine
from serving.telemetry.cache import CacheCounts
from serving.telemetry.features import FeatureCounts
from serving.telemetry.quotas import QuotaReading
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import GpuReading, ReplicaSnapshot

STATM = Path("/proc/self/statm")


class SnapshotSource:
    """Takes snapshots of one replica.

    replica, node: its name and the address of its machine.
    price_per_hour: price of its resources, None without a price.
    wire: times of reading and writing its messages.
    predictions: how often each class was the best; empty without labels.
    read_gpus: returns readings of this replica's GPUs; an empty sequence without GPUs.
    read_quotas: returns the quotas of tenants; None without tenants.
    backend: what answers the requests, with a cache in front of the engine for instance; None: the engine.
    read_cache: returns the counts of the cache; None without one. features: counts; None without features.
    """

    def __init__(
        self,
        engine: AnyEngine,
        recorder: Recorder,
        *,
        replica: str,
        node: str,
        price_per_hour: float | None = None,
        wire: WireTimes | None = None,
        predictions: Mapping[str, int] = MappingProxyType({}),
        read_gpus: Callable[[], Sequence[GpuReading]] = tuple,
        read_quotas: Callable[[], QuotaReading] | None = None,
        backend: Backend | None = None,
        read_cache: Callable[[], CacheCounts] | None = None,
        features: FeatureCounts | None = None,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._replica = replica
        self._node = node
        self._price_per_hour = price_per_hour
        self._wire = wire or WireTimes()
        self._predictions = predictions
        self._read_gpus = read_gpus
        self._read_quotas = read_quotas
        self._statistics = (backend or engine).statistics
        self._read_cache = read_cache
        self._features = features
        self._began_ns = SystemClock.now_ns()

    def snapshot(self) -> ReplicaSnapshot:
        """Returns the present state. It shares its counts with the engine, so serialize it before awaiting anything."""
        engine = self._engine
        ledger = engine.ledger.snapshot()
        reading = engine.reading()
        return ReplicaSnapshot(
            model=engine.spec.name,
            version=engine.spec.version,
            replica=self._replica,
            node=self._node,
            device=str(engine.model.device),
            door=entrance.door,
            ready=engine.is_ready(),
            uptime_ns=SystemClock.now_ns() - self._began_ns,
            received=ledger.received,
            queued=ledger.queued,
            in_flight=ledger.in_flight,
            expected_wait_ns=reading.wait_ns,
            lanes=reading.lanes,
            cpu_ns=cpu_ns(),
            memory_bytes=memory_bytes(),
            price_per_hour=self._price_per_hour,
            statistics=self._statistics(),
            counts=self._recorder.counts(),
            gpus=tuple(self._read_gpus()),
            predictions=dict(self._predictions),
            wire=self._wire,
            quotas=None if self._read_quotas is None else self._read_quotas(),
            cache=None if self._read_cache is None else self._read_cache(),
            features=self._features,
            **_batching(engine),
        )


def _batching(engine: AnyEngine) -> dict[str, Any]:
    """Returns the fields about batching. A generating model has no batching queue: each request is its own batch."""
    if isinstance(engine, GeneratingEngine):
        return {
            "queued_rows": engine.ledger.queued,
            "batches_in_flight": engine.ledger.in_flight,
            "largest_batch_rows": 1,
            "useful_batch_rows": 1,
            "bound_margin": 0.0,
            "bound_coverage": 1.0,
            "drift": 1.0,
            "budget_ms": engine.spec.latency_budget_ms,
        }
    batcher = engine.batcher
    learned = batcher.latency.snapshot()
    return {
        "queued_rows": batcher.queue.rows,
        "batches_in_flight": engine.batches_in_flight(),
        "largest_batch_rows": batcher.sizes.largest_rows,
        "useful_batch_rows": batcher.sizes.useful_rows(batcher.latency, batcher.sizes.lengths[-1]),
        "bound_margin": learned.margin,
        "bound_coverage": learned.coverage,
        "drift": learned.drift,
        "budget_ms": engine.budget_ms,
    }


def cpu_ns() -> int:
    """CPU time of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)


def memory_bytes() -> int:
    """Resident memory of this process."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()
