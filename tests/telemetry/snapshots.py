"""Builders of snapshots with defaults for tests."""

from typing import Any

from serving.core.statistics import ModelStatistics
from serving.telemetry.recorder import Counts
from serving.telemetry.snapshot import ClusterSnapshot, ModelSnapshot, ReplicaSnapshot


def replica(**more: Any) -> ReplicaSnapshot:
    fields: dict[str, Any] = {
        "model": "scorer",
        "version": "1",
        "replica": "abc",
        "node": "10.0.0.1",
        "device": "cpu",
        "door": "fast",
        "ready": True,
        "uptime_ns": 3_600_000_000_000,
        "received": 0,
        "queued": 0,
        "in_flight": 0,
        "queued_rows": 0,
        "expected_wait_ns": 0,
        "lanes": 1,
        "batches_in_flight": 0,
        "largest_batch_rows": 128,
        "useful_batch_rows": 32,
        "bound_margin": 0.1,
        "bound_coverage": 0.99,
        "drift": 1.0,
        "budget_ms": None,
        "cpu_ns": 0,
        "memory_bytes": 1,
        "price_per_hour": None,
        "statistics": ModelStatistics(),
        "counts": Counts(),
    }
    return ReplicaSnapshot(**{**fields, **more})


def cluster(*replicas: ReplicaSnapshot, **more: Any) -> ClusterSnapshot:
    fields: dict[str, Any] = {
        "name": "scorer",
        "version": "1",
        "state": "READY",
        "reason": "",
        "running": len(replicas),
        "wanted": len(replicas),
        "limit": None,
        "silent": 0,
        "replicas": replicas,
    }
    return ClusterSnapshot(models=(ModelSnapshot(**{**fields, **more}),), took_ns=5_000_000)
