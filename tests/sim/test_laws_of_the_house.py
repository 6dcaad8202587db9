"""Tests invariants of the core in simulations with random arrivals and failures. The ledger is checked at each event.

The message of a failure contains the seed; set the environment variable SEED to replay it.
"""

import os

import pytest

from serving.testing.simulation.arrivals import bursty, gamma, poisson, sinusoid, step
from serving.testing.simulation.executor import End, Run, simulate
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import SET_A, SET_B, SET_C, SETS, Affine, Device, Setting
from serving.testing.simulation.workload import Stream, Workload, bert_lengths, mixed, single

SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else [1, 2]
ARRIVALS = {
    "poisson": poisson,
    "clumps": gamma(4.0),
    "bursts": bursty(100.0),
    "a five-fold step": step(5.0),
    "a wave": sinusoid(0.8, 500.0),
}


def world(setting: Setting, load: float, seed: int, count: int = 1500, **stream: object) -> Workload:
    rate = load * setting.capacity_per_ms()
    return single(count, seed, Stream(rate_per_ms=rate, budget_ns=setting.budget_ns, **stream))  # type: ignore[arg-type]


def assert_everyone_ended_once(run: Run, seed: int) -> None:
    assert End.NONE not in run.ends, f"seed {seed}: a request was never answered"
    assert run.answered_twice == 0, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("batches_per_lane", [1, 2])
@pytest.mark.parametrize("arrivals", ARRIVALS)
def test_every_request_ends_exactly_once_and_none_that_expired_is_computed(
    arrivals: str, batches_per_lane: int, seed: int
) -> None:
    for setting in SETS:
        workload = world(setting, 1.1, seed, arrivals=ARRIVALS[arrivals], cancelling=0.1)
        policy = Headway(setting.law, setting.max_rows, batches_per_lane=batches_per_lane, lead_ns=300_000)
        device = Device(law=setting.law, slow_share=0.01, failing_share=0.02)
        run = simulate(workload, policy, device, seed=seed)
        assert_everyone_ended_once(run, seed)
        assert policy.ledger.is_empty()
        if batches_per_lane == 1:
            assert run.started_expired == 0, f"seed {seed}, set {setting.name}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_invariants_hold_with_several_lanes_tenants_budgets_and_lengths(seed: int) -> None:
    lengths = (16, 32, 64, 128)
    law = Affine(0.01, 2.0)
    streams = [
        Stream(rate_per_ms=1.5, budget_ns=40_000_000, tenant="a", lengths=bert_lengths, arrivals=gamma(3.0)),
        Stream(rate_per_ms=1.0, budget_ns=200_000_000, tenant="b", lengths=bert_lengths, priority=1, rows=3),
        Stream(rate_per_ms=0.5, budget_ns=60_000_000, tenant="c", priority=5, cancelling=0.5),
    ]
    policy = Headway(law, 32, lanes=3, lengths=lengths, row_ladder=(1, 2, 4, 8, 16, 24, 32), weights={"b": 2.0})
    run = simulate(mixed(3000, seed, streams), policy, Device(law=law, noise=0.1), lanes=3, seed=seed)
    assert_everyone_ended_once(run, seed)
    assert run.started_expired == 0, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_invariants_hold_and_no_request_starves_with_priorities_and_without_deadlines(seed: int) -> None:
    """Simulates a model without a latency budget: clients give up after 15 ms, after ten minutes, or never."""
    step_ns = 100_000_000
    streams = [
        Stream(rate_per_ms=0.3 * SET_A.capacity_per_ms(), budget_ns=budget_ns, priority=priority, step_ns=step_ns)
        for budget_ns, priority in ((15_000_000, 0), (15_000_000, 5), (6 * 10**11, 1), (6 * 10**11, 3), (10**18, 2))
    ]
    workload = mixed(3000, seed, streams)
    policy = Headway(SET_A.law, SET_A.max_rows)
    run = simulate(workload, policy, Device(law=SET_A.law, noise=0.1), seed=seed)
    assert_everyone_ended_once(run, seed)
    assert run.started_expired == 0, f"seed {seed}"
    patient = [one for one in workload.requests if one.expires_ns - one.arrived_ns > step_ns]
    assert all(run.ends[one.id] is End.COMPLETED for one in patient), "a patient client was not answered"
    batch_ns = 2 * SET_A.law.mean_ns(SET_A.max_rows)
    latest_ns = 0  # the latest rank answered so far
    for one in sorted(patient, key=lambda one: run.finished_ns[one.id]):
        assert one.rank_ns >= latest_ns - step_ns - batch_ns, (
            f"seed {seed}: overtaken by a request that arrived much later"
        )
        latest_ns = max(latest_ns, one.rank_ns)


def test_a_full_queue_refuses_requests_and_loses_none() -> None:
    policy = Headway(SET_A.law, 8, max_requests=20)
    stream = Stream(rate_per_ms=2.0, budget_ns=10**10)
    run = simulate(single(1000, 1, stream), policy, Device(law=SET_A.law), seed=1)
    assert_everyone_ended_once(run, 1)
    assert run.ends.count(End.REFUSED) > 300


def test_the_same_seed_gives_the_same_world_to_the_nanosecond() -> None:
    def play(seed: int) -> Run:
        return simulate(world(SET_B, 1.2, seed), Headway(SET_B.law, 128), Device(law=SET_B.law), seed=seed)

    first, again, other = play(5), play(5), play(6)
    assert (first.finished_ns, first.ends, first.batch_sizes) == (again.finished_ns, again.ends, again.batch_sizes)
    assert first.finished_ns != other.finished_ns


def test_when_the_device_becomes_slower_the_prediction_follows_and_little_late_work_is_done() -> None:
    workload = world(SET_C, 0.7, seed=3, count=8000)
    shift_at_ns = workload.requests[2000].arrived_ns
    device = Device(law=SET_C.law, shift=2.0, shift_at_ns=shift_at_ns)
    policy = Headway(SET_C.law, SET_C.max_rows)
    run = simulate(workload, policy, device, seed=3)
    assert_everyone_ended_once(run, 3)
    assert run.late_ns / run.busy_ns < 0.03
    assert policy.batcher.latency.predict_ns(32) == pytest.approx(2 * SET_C.law.mean_ns(32), rel=0.05)
