"""Tests in seeded simulations the bound in front of a replica with a flood of one tenant and a calm one beside it."""

import pytest

from serving.testing.simulation.disturbed import MLP, NOISE, READING_NS, headway
from serving.testing.simulation.executor import End, simulate
from serving.testing.simulation.host import RESERVE, DisturbedDevice, Host
from serving.testing.simulation.machine import MS, Shared, whole
from serving.testing.simulation.workload import Stream, mixed


def in_time(calm_per_ms: float, flood_per_ms: float, *, reserve: int = RESERVE, ms: int = 1200) -> tuple[float, float]:
    """Returns the calm tenant's share in time, and the answers in time per ms of both, in the second half of the run,
    when the bound has been found. 4 per ms are possible."""
    streams = [
        Stream(rate_per_ms=rate, budget_ns=MLP.budget_ns, tenant=tenant)
        for tenant, rate in (("calm", calm_per_ms), ("flood", flood_per_ms))
    ]
    workload = mixed(int((calm_per_ms + flood_per_ms) * ms), 1, streams)
    policy, intake = headway(None)
    host = Host(policy, Shared(whole()), READING_NS, intake, reserve=reserve)
    run = simulate(workload, host, DisturbedDevice(law=MLP.law, noise=NOISE, machine=Shared(whole())), seed=1)
    assert End.NONE not in run.ends
    late_half = [one for one in workload.requests if one.arrived_ns > ms * MS // 2]
    served = [one for one in late_half if run.ends[one.id] is End.COMPLETED]
    good = [one for one in served if run.finished_ns[one.id] <= one.deadline_ns]
    calm = [one for one in late_half if one.tenant == "calm"]
    return sum(one.tenant == "calm" for one in good) / len(calm), len(good) / (ms / 2)


@pytest.mark.parametrize(("calm", "flood"), [(0.15, 8.0), (1.0, 8.0)])
def test_a_calm_tenant_keeps_its_answers_because_a_flood_leaves_places_free(calm: float, flood: float) -> None:
    kept, in_all = in_time(calm, flood)
    assert kept >= 0.97
    assert in_all >= 3.3


def test_without_places_kept_free_it_waits_for_a_batch_before_it_is_read() -> None:
    kept, in_all = in_time(1.0, 8.0, reserve=0)
    assert kept < 0.9
    assert in_all < 1.03 * in_time(1.0, 8.0)[1]  # and no more are answered for it
