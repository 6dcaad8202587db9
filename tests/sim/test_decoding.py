"""Tests in seeded simulations that requests are prepared when it is known that they will be served, and not before."""

import pytest

from serving.testing.simulation.decoding import Decoding
from serving.testing.simulation.executor import End, Run, simulate
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import MS, Device, Table
from serving.testing.simulation.measures import measure
from serving.testing.simulation.workload import Stream, Workload, mixed, single

# EfficientNet-Lite0 on one thread: small batches are best. Rows per ms: 1 / 17.
PHOTOGRAPHS = Table(((1, 20.0), (2, 34.0), (4, 68.0), (16, 352.0), (64, 2240.0)))
CAPACITY = 1 / 17
BUDGET_NS = 500 * MS


def play(workload: Workload, *, late: bool, decoding_ms: float = 3.0) -> tuple[Run, Decoding]:
    policy = Headway(PHOTOGRAPHS, 64, batches_per_lane=2, lead_ns=300_000)
    decoding = Decoding(policy, threads=2, took_ns=int(decoding_ms * MS), late=late)
    run = simulate(workload, decoding, Device(law=PHOTOGRAPHS), seed=1)
    assert End.NONE not in run.ends
    assert run.answered_twice == 0
    assert policy.batcher.unprepared_rows == 0
    return run, decoding


def photographs(load: float, count: int = 1000) -> Workload:
    return single(count, 1, Stream(rate_per_ms=load * CAPACITY, budget_ns=BUDGET_NS))


def test_in_overload_hardly_any_photograph_is_decoded_in_vain_and_as_many_are_served() -> None:
    workload = photographs(2.0)
    first, all_at_once = play(workload, late=False)
    run, decoding = play(workload, late=True)
    assert all_at_once.in_vain > 0.4 * all_at_once.prepared
    assert decoding.in_vain < 0.02 * decoding.prepared
    assert measure(workload, run).in_time >= 0.99 * measure(workload, first).in_time


def test_where_decoding_takes_as_long_as_computing_an_overload_is_no_collapse() -> None:
    workload = photographs(4.0)
    assert measure(workload, play(workload, late=False, decoding_ms=20)[0]).in_time * 4 < 0.3
    assert measure(workload, play(workload, late=True, decoding_ms=20)[0]).in_time * 4 > 0.9


@pytest.mark.parametrize("load", [0.3, 0.9])
def test_below_capacity_nobody_waits_longer_for_it(load: float) -> None:
    workload = photographs(load)
    first, last = (measure(workload, play(workload, late=late)[0]) for late in (False, True))
    assert last.in_time >= first.in_time
    assert last.mean_ms <= 1.02 * first.mean_ms


def test_a_tenant_within_its_share_keeps_its_answers_beside_one_that_floods() -> None:
    calm = Stream(rate_per_ms=0.2 * CAPACITY, budget_ns=BUDGET_NS, tenant="calm")
    flood = Stream(rate_per_ms=4.0 * CAPACITY, budget_ns=BUDGET_NS, tenant="flood")
    workload = mixed(2000, 1, [calm, flood])
    run, decoding = play(workload, late=True)
    assert measure(workload, run, "calm").in_time >= 0.98
    assert decoding.in_vain < 0.15 * decoding.prepared


def test_requests_with_little_time_are_decoded_before_those_with_much() -> None:
    tight = Stream(rate_per_ms=0.4 * CAPACITY, budget_ns=150 * MS)
    easy = Stream(rate_per_ms=0.5 * CAPACITY, budget_ns=4000 * MS)
    workload = mixed(1500, 1, [tight, easy])
    run, _ = play(workload, late=True)
    tight_ids = [one.id for one in workload.requests if one.deadline_ns - one.arrived_ns == 150 * MS]
    served = sum(run.ends[index] is End.COMPLETED for index in tight_ids)
    assert served >= 0.95 * len(tight_ids)
