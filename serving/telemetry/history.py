"""The history of the last hour for the dashboard: a point per application for each interval between two
snapshots of the cluster.

Pure and bounded: a new point replaces the oldest. Points hold counts, not ratios or quantiles, so that a reader can sum
as many of them as fit into a pixel.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.telemetry.quotas import REFUSALS
from serving.telemetry.recorder import DURATION_NS
from serving.telemetry.snapshot import ClusterSnapshot, ModelSnapshot, ReplicaSnapshot
from serving.telemetry.tenants import OTHER, label

EVERY_S = 5.0
KEPT = 756  # points: an hour, and a few more so that the page's curves begin at its edge
MOST_CLASSES = 10  # classes per point; the others are summed
ALL = ""  # the name of the sum of all models
BOUNDS_MS = tuple(bound / 1e6 for bound in DURATION_NS)
# Failures caused by the client, which do not count as errors. The alert in deploy/prometheus/rules.yml does the same.
_OF_CLIENTS = ("invalid_input", "too_large")

Point = dict[str, Any]
_TABLES = ("ended", "cuts", "latency", "tenants", "device_s", "classes")  # counts by name
_REFUSED = tuple(f"over_{reason}" for reason in REFUSALS)  # requests beyond a quota by tenant; absent without quotas
_CACHE = "cache"  # what the cache did: hit, miss, saved_s and saved_cost; absent without one
_OPTIONAL = (*_REFUSED, _CACHE)
_COUNTED = (
    *_TABLES,
    "rows",
    "batches",
    "asked",
    "computed",
    "cpu_s",
    "cost",
)  # summed when the points of models are joined
_OF_NOBODY = ("at", "seconds", "running", "wanted")  # the same for every tenant
_NOTHING: Point = {
    **{name: {} for name in _TABLES},
    **dict.fromkeys(("rows", "batches", "asked", "computed", "cpu_s", "queued", "wait_ms", "memory"), 0),
    "cost": None,
    "busy": None,
}


@dataclass(slots=True)
class Totals:
    """The counts of one replica in its latest snapshot. round: number of that snapshot."""

    round: int = 0
    ended: Counter[str] = field(default_factory=Counter)  # by outcome; `invalid` are failures caused by clients
    rows: int = 0
    batches: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    computed: int = 0
    latency: Counter[int] = field(default_factory=Counter)  # requests by the index of their bucket
    busy_ns: float = 0
    cpu_ns: int = 0
    cost: float = 0
    tenants: Counter[str] = field(default_factory=Counter)
    device_ns: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    optional: dict[str, Counter[str]] = field(default_factory=dict)  # by the names in `_OPTIONAL`


class History:
    """The points of all models, made from a snapshot every few seconds.

    kept: the most points per model. latest: the latest snapshot.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self.latest: ClusterSnapshot | None = None
        self._kept = kept
        self._points: dict[str, deque[Point]] = {}
        self._totals: dict[tuple[str, str], Totals] = {}
        self._round = 0
        self._looked_ns: int | None = None

    def add(self, snapshot: ClusterSnapshot, *, at_s: float, now_ns: int) -> None:
        """Adds a snapshot. at_s: time of day in seconds, for the reader. now_ns: monotonic time, for the rates."""
        self.latest = snapshot
        self._round += 1
        before_ns, self._looked_ns = self._looked_ns, now_ns
        seconds = 0.0 if before_ns is None else (now_ns - before_ns) / 1e9
        points = {model.application: self._point(model, seconds) for model in snapshot.models}
        self._forget()
        if before_ns is None:
            return  # the first snapshot only is the base of the counts
        for name, point in {**points, ALL: _joined(points.values(), snapshot)}.items():
            line = self._points.setdefault(name, deque(maxlen=self._kept))
            line.append({"at": round(at_s, 1), "seconds": round(seconds, 3), **point})

    def points(self, model: str = ALL, since_s: float = 0.0) -> list[Point]:
        """Returns the model's points after this time of day, oldest first."""
        return [point for point in self._points.get(model, ()) if point["at"] > since_s]

    def lines(self) -> dict[str, list[Point]]:
        """Returns all points by model, for `restore` in another process."""
        return {name: list(line) for name, line in self._points.items()}

    def restore(self, lines: Mapping[str, list[Point]], since_s: float) -> None:
        """Replaces the points by those of another history that are after this time of day."""
        for name, line in lines.items():
            self._points[name] = deque((point for point in line if point["at"] > since_s), maxlen=self._kept)

    def _point(self, model: ModelSnapshot, seconds: float) -> Point:
        counted: Point = {name: Counter() for name in _TABLES}
        counted |= {"rows": 0, "batches": 0, "asked": 0, "computed": 0, "cpu_s": 0.0, "cost": None}
        shares = []
        for replica in model.replicas:
            key, now = (model.application, replica.replica), _totals(replica, self._round)
            was = self._totals.get(key)
            self._totals[key] = now
            if was is None and replica.uptime_ns > (seconds + 1) * 1e9:
                was = now  # an old replica seen for the first time: when its counts arose is unknown
            was = was or Totals(cpu_ns=now.cpu_ns)  # leave out the CPU time of its start
            _count(counted, was, now)
            if seconds and (now.busy_ns or not now.batches):  # generating models do not report a busy time
                shares.append(min(1.0, (now.busy_ns - was.busy_ns) / (replica.lanes * seconds * 1e9)))
            for name, counts in now.optional.items():
                counted[name] = counted.get(name, Counter()) + (counts - was.optional.get(name, Counter()))
            if replica.cost is not None:
                counted["cost"] = (counted["cost"] or 0.0) + now.cost - was.cost
        return {**_plain(counted), **_gauges(model), "busy": round(sum(shares) / len(shares), 4) if shares else None}

    def _forget(self) -> None:
        """Removes the totals of replicas that were absent for as long as points are kept."""
        self._totals = {key: seen for key, seen in self._totals.items() if seen.round > self._round - self._kept}


def _totals(replica: ReplicaSnapshot, this_round: int) -> Totals:
    """Returns a copy of the replica's counts, because those of a replica in this process keep changing."""
    counts, statistics = replica.counts, replica.statistics
    ended: Counter[str] = Counter(completed=statistics.success.count)
    for (outcome, reason), count in counts.ended.items():
        ended["invalid" if reason in _OF_CLIENTS else outcome] += count
    return Totals(
        round=this_round,
        ended=ended,
        rows=statistics.inference_count,
        batches=statistics.execution_count,
        cuts=Counter({reason.lower(): count for reason, count in counts.cuts.items()}),
        asked=counts.cells_asked,
        computed=counts.cells_computed,
        latency=Counter(dict(enumerate(counts.request_ns.counts))),
        busy_ns=counts.batch_ns.total,
        cpu_ns=replica.cpu_ns,
        cost=replica.cost or 0.0,
        tenants=Counter({tenant: one.requests for tenant, one in counts.tenants.items()}),
        device_ns=Counter({tenant: round(one.device_ns) for tenant, one in counts.tenants.items()}),
        classes=Counter(replica.predictions),
        optional=_refused(replica) | _cached(replica),
    )


def _refused(replica: ReplicaSnapshot) -> dict[str, Counter[str]]:
    if replica.quotas is None:
        return {}
    tenants = replica.quotas.tenants.items()
    return {
        name: Counter({tenant: counts.refused.get(reason, 0) for tenant, counts in tenants})
        for name, reason in zip(_REFUSED, REFUSALS, strict=True)
    }


def _cached(replica: ReplicaSnapshot) -> dict[str, Counter[str]]:
    cache = replica.cache
    if cache is None:
        return {}
    saved: dict[str, Any] = {"saved_s": cache.saved_ns / 1e9, "saved_cost": replica.saved_cost or 0.0}
    return {_CACHE: Counter({"hit": cache.hits, "miss": cache.missed} | saved)}


def _count(counted: Point, was: Totals, now: Totals) -> None:
    for name in ("ended", "cuts", "latency", "tenants", "classes"):
        counted[name] += getattr(now, name) - getattr(was, name)
    for name in ("rows", "batches", "asked", "computed"):
        counted[name] += getattr(now, name) - getattr(was, name)
    counted["cpu_s"] += (now.cpu_ns - was.cpu_ns) / 1e9
    for tenant, spent_ns in (now.device_ns - was.device_ns).items():
        counted["device_s"][tenant] += spent_ns / 1e9


def _plain(counted: Mapping[str, Any]) -> Point:
    """Returns the point with values that JSON can represent."""
    plain = dict(counted)
    plain["latency"] = {str(bucket): count for bucket, count in sorted(counted["latency"].items())}
    for name in ("ended", "cuts", "tenants", *_OPTIONAL):
        if name in counted:
            plain[name] = {key: round(count, 6) for key, count in counted[name].items()}
    plain["device_s"] = {tenant: round(spent, 4) for tenant, spent in counted["device_s"].items()}
    most_common = counted["classes"].most_common(MOST_CLASSES)
    rest = counted["classes"].total() - sum(count for _, count in most_common)
    plain["classes"] = dict(most_common) | ({OTHER: rest} if rest else {})
    plain["cpu_s"] = round(counted["cpu_s"], 3)
    return plain


def _gauges(model: ModelSnapshot) -> Point:
    """Returns the values at the instant of the snapshot."""
    replicas = model.replicas
    return {
        "queued": sum(replica.queued for replica in replicas),
        "wait_ms": round(max((replica.expected_wait_ns for replica in replicas), default=0) / 1e6, 1),
        "memory": sum(replica.memory_bytes for replica in replicas),
        "running": model.running,
        "wanted": model.wanted,
        **_gpus(replicas),
    }


def _gpus(replicas: tuple[ReplicaSnapshot, ...]) -> Point:
    """Returns the load and memory of all GPUs, each counted once although replicas may share it; empty without one."""
    gpus = {gpu.uuid: gpu for replica in replicas for gpu in replica.gpus}.values()
    if not gpus:
        return {}
    busy = [gpu.busy_ratio for gpu in gpus if gpu.busy_ratio is not None]
    return {
        **({"gpu_busy": round(sum(busy) / len(busy), 4)} if busy else {}),
        "gpu_memory": sum(gpu.memory_used_bytes for gpu in gpus),
        "gpu_memory_total": sum(gpu.memory_total_bytes for gpu in gpus),
    }


def _joined(points: Any, snapshot: ClusterSnapshot) -> Point:
    """Returns the point of all models together: sums, but the maximum of the waits and of the busy shares."""
    models = list(points)
    joined: Point = {}
    for name in _COUNTED:
        values = [point[name] for point in models if point[name] is not None]
        joined[name] = _sum(values) if values else None
    for name in _OPTIONAL:
        if tables := [point[name] for point in models if name in point]:
            joined[name] = _sum(tables)
    for name in ("queued", "memory", "running", "wanted"):
        joined[name] = sum(point[name] for point in models)
    busy = [point["busy"] for point in models if point["busy"] is not None]
    joined["busy"] = max(busy, default=None)
    joined["wait_ms"] = max((point["wait_ms"] for point in models), default=0.0)
    return joined | _gpus(tuple(replica for model in snapshot.models for replica in model.replicas))


def only_of(tenant: str, point: Point) -> Point:
    """Returns the point as this tenant may see it: its own counts, and how many replicas there are. All that holds
    requests of others too is empty."""
    own = label(tenant)
    shown = {**_NOTHING, **{name: point[name] for name in _OF_NOBODY}}
    for name in ("tenants", "device_s", *_REFUSED):
        if name in point:
            shown[name] = {own: point[name].get(own, 0) if own != OTHER else 0}  # one of that name has none of its own
    return shown


def _sum(values: list[Any]) -> Any:
    if not isinstance(values[0], dict):
        return sum(values)
    total: Counter[str] = Counter()
    for value in values:
        total.update(value)
    return dict(total)
