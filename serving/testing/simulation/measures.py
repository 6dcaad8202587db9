"""Computes the measures of a finished run."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from serving.testing.simulation.executor import End, Run
from serving.testing.simulation.workload import Workload

WARM_UP_SHARE = 0.1  # of the requests; not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """The measures of a run. in_time: share of the requests answered before their deadline. Latencies are of completed
    requests. late_work: share of device time for late answers. useful: share of computed cells without padding."""

    in_time: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    late_work: float
    useful: float
    mean_rows: float


def measure(workload: Workload, run: Run, tenant: str | None = None) -> Measures:
    requests = workload.requests[int(WARM_UP_SHARE * len(workload.requests)) :]
    if tenant is not None:
        requests = [request for request in requests if request.tenant == tenant]
    ends, finished_ns = run.ends, run.finished_ns
    latencies = []
    in_time = counted = 0
    for request in requests:
        end = ends[request.id]
        if end is End.CANCELLED:
            continue
        counted += 1
        if end is End.COMPLETED:
            done_ns = finished_ns[request.id]
            latencies.append(done_ns - request.arrived_ns)
            in_time += done_ns <= request.deadline_ns
    latencies.sort()
    return Measures(
        in_time=in_time / max(counted, 1),
        mean_ms=fmean(latencies) / 1e6 if latencies else float("nan"),
        p50_ms=quantile(latencies, 0.5) / 1e6,
        p99_ms=quantile(latencies, 0.99) / 1e6,
        late_work=run.late_ns / max(run.busy_ns, 1),
        useful=run.useful_cells / max(run.padded_cells, 1),
        mean_rows=run.rows / max(run.batches, 1),
    )


def quantile(ascending: list[int], share: float) -> float:
    return float(ascending[min(len(ascending) - 1, int(share * len(ascending)))]) if ascending else float("nan")


def jain(values: Iterable[float]) -> float:
    """Returns Jain's fairness index: 1 if all values are equal, 1/n if one of n has everything."""
    listed = list(values)
    squares = sum(value * value for value in listed)
    return sum(listed) ** 2 / (len(listed) * squares) if squares else 1.0
