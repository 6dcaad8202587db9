"""Runs the scaling policy in Ray Serve's controller, which calls it twice a second with the replicas' reports.

Ray does not count requests that come through the fast door. So replicas report `Reading`s (`record_autoscaling_stats`).
Ray's own factors and delays are switched off, because the policy has its own. One decision stays with Ray: when a
request for a model without replicas waits in Ray's Python proxy, Ray starts a replica without calling the policy.
"""

import logging
import warnings
from dataclasses import asdict
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from serving.cluster import decisions
from serving.config import ModelSettings
from serving.core.clock import SystemClock
from serving.scaling.policy import SECOND_NS, Cause, History, Policy, Target
from serving.scaling.signals import Reading, Signal, window

logger = logging.getLogger("ray.serve")
REPORT_S = 1.0  # how often a replica reports
WINDOW_NS = SECOND_NS - 50_000_000  # some reports come a little early
DEFAULT_WAIT_MS = 1000.0


class QueueScaling:
    """The policy object that Ray Serve calls, one per deployed version of a model. Its history is lost when the
    controller restarts."""

    def __init__(self, model: str, policy: dict[str, float]) -> None:
        self._model = model
        self._policy = Policy(**policy)  # type: ignore[arg-type]
        self._memory = History()
        self._spans: dict[str, tuple[Reading, Reading]] = {}
        self._decided_ns = 0
        self._published: tuple[int, Cause] | None = None

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        now_ns = SystemClock.now_ns()
        if now_ns - self._decided_ns < WINDOW_NS:
            return context.target_num_replicas, {}
        self._decided_ns = now_ns
        current = context.target_num_replicas
        signal = self._signal(latest(context.raw_metrics or {}))
        target = self._policy.decide(signal, current, self._memory, now_ns)
        if self._published is not None and self._published[0] == 0 < current:
            awakened = Target(replicas=current, cause=Cause.AWAKENED, reason="a request came")
            self._publish(awakened, 0, signal, context.current_time)
        if (target.replicas, target.cause) != self._published and (
            target.cause is not Cause.STEADY or self._published is None
        ):
            self._publish(target, current, signal, context.current_time)
        return target.replicas, {}

    def _signal(self, readings: dict[str, Reading]) -> Signal:
        """Returns the sum over all present replicas of the change between their latest two readings."""
        spans = {}
        for name, reading in readings.items():
            before, after = self._spans.get(name, (reading, reading))
            spans[name] = (before, after) if reading.at_ns == after.at_ns else (after, reading)
        self._spans = spans
        return window(spans.values())

    def _publish(self, target: Target, current: int, signal: Signal, at_s: float) -> None:
        """Writes the decision to the controller's log and to the store that the dashboard reads."""
        self._published = (target.replicas, target.cause)
        logger.info(
            "%s: %d replicas wanted, %d were: %s (%s)",
            self._model,
            target.replicas,
            current,
            target.reason,
            target.cause,
        )
        seen = asdict(signal) | {"wait_ms": signal.wait_ns / 1e6}
        del seen["wait_ns"]
        decision = {"at": at_s, "current": current, "wanted": target.replicas}
        decisions.record(self._model, decision | {"cause": str(target.cause), "reason": target.reason} | seen)


def latest(metrics: dict[str, dict[Any, Any]]) -> dict[str, Reading]:
    """Returns the last reading of each replica, by replica id. metrics: Ray's time series by metric and replica."""
    by_replica: dict[str, dict[str, float]] = {}
    for name, series_by_replica in metrics.items():
        for replica, series in series_by_replica.items():
            if series:
                by_replica.setdefault(replica.unique_id, {})[name] = series[-1].value
    readings = {replica: Reading.from_stats(stats) for replica, stats in by_replica.items()}
    return {replica: reading for replica, reading in readings.items() if reading is not None}


def policy_of(model: ModelSettings) -> dict[str, float]:
    """Returns the fields of a `Policy` for this model as plain numbers, because Ray sends them as JSON."""
    scaling = model.scaling
    assert scaling is not None, model.name
    wait_ms = scaling.max_wait_ms
    if wait_ms is None:
        wait_ms = model.latency_budget_ms / 2 if model.latency_budget_ms else DEFAULT_WAIT_MS
    return {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "wait_ns": int(wait_ms * 1e6),
        "queue_requests": scaling.max_queue_requests or max(1, model.limits.max_queue_requests // 4),
        "up_after_ns": int(scaling.up_after_s * 1e9),
        "down_after_ns": int(scaling.down_after_s * 1e9),
        "load_target": scaling.load_target,
    }


def autoscaling_config(model: ModelSettings, application: str) -> AutoscalingConfig | None:
    """Returns Ray's autoscaling settings with the model's bounds and without delays; None for a model with a fixed
    number of replicas. application: under its name the decisions are kept."""
    if model.scaling is None:
        return None
    with warnings.catch_warnings():
        # Deprecated in favour of an environment variable that Ray 2.60 does not read yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        policy = policy_of(model)
        return AutoscalingConfig(
            min_replicas=policy["min_replicas"],
            max_replicas=policy["max_replicas"],
            metrics_interval_s=REPORT_S,
            look_back_period_s=5 * REPORT_S,
            upscale_delay_s=0.0,
            downscale_delay_s=0.0,
            downscale_to_zero_delay_s=0.0,
            policy=AutoscalingPolicy(
                policy_function="serving.cluster.autoscale:QueueScaling",
                policy_kwargs={"model": application, "policy": policy},
            ),
        )
