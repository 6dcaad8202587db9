"""Tests the performance of the core's decisions in small seeded simulations, with bounds wide enough to be robust."""

import pytest

from serving.testing.simulation.arrivals import poisson
from serving.testing.simulation.baselines import ServeBatch, Timeout
from serving.testing.simulation.capacity import run_at
from serving.testing.simulation.executor import Run, simulate
from serving.testing.simulation.field import greedy, headway, headway_ahead
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import SET_A, SET_B, SET_C, SETS, Affine, Device, Setting
from serving.testing.simulation.measures import jain, measure
from serving.testing.simulation.workload import Stream, mixed, single

COUNT = 4000


def goodput_over_bound(setting: Setting, load: float, seed: int) -> float:
    rate = load * setting.capacity_per_ms()
    in_time = run_at(setting, headway(setting), poisson, load, count=COUNT, seed=seed).in_time
    return in_time * rate / setting.bound_per_ms(rate)


@pytest.mark.parametrize("load", [1.2, 1.6, 2.0])
@pytest.mark.parametrize("setting", SETS, ids=lambda setting: setting.name)
def test_in_overload_nine_tenths_of_what_is_possible_are_answered_in_time(setting: Setting, load: float) -> None:
    assert goodput_over_bound(setting, load, seed=1) >= 0.9


@pytest.mark.parametrize("setting", SETS, ids=lambda setting: setting.name)
def test_below_capacity_the_mean_latency_is_that_of_greedy_batching(setting: Setting) -> None:
    ours = run_at(setting, headway(setting), poisson, 0.5, count=COUNT, seed=2)
    theirs = run_at(setting, greedy(setting), poisson, 0.5, count=COUNT, seed=2)
    assert ours.mean_ms <= 1.01 * theirs.mean_ms
    assert ours.in_time >= 0.999


@pytest.mark.parametrize("setting", SETS, ids=lambda setting: setting.name)
def test_no_device_time_goes_into_late_answers(setting: Setting) -> None:
    for make in (headway(setting), headway_ahead(setting)):
        assert run_at(setting, make, poisson, 1.5, count=COUNT, seed=3).late_work <= 0.005


@pytest.mark.parametrize(("stall_share", "stall_ms"), [(0.1, 20.0), (0.3, 10.0), (0.5, 10.0)])
def test_a_device_that_stalls_now_and_then_does_not_make_batches_collapse(stall_share: float, stall_ms: float) -> None:
    """Guards against a margin proportional to the batch's time alone.

    With such a margin a twentieth of this goodput was reached, in batches of three rows.
    """
    busy = Setting(name="busy", law=Affine(0.17, 2.0), budget_ms=50.0, max_rows=128)
    device = Device(law=busy.law, noise=0.1, stall_share=stall_share, stall_ms=stall_ms)
    stream = Stream(rate_per_ms=0.6 * busy.capacity_per_ms(), budget_ns=busy.budget_ns)
    workload = single(3 * COUNT, 5, stream)
    run = simulate(workload, headway_ahead(busy)(), device, seed=5)
    assert measure(workload, run).in_time >= 0.7
    assert run.rows / run.batches >= 15


def test_batching_by_a_timer_collapses_where_cutting_just_in_time_does_not() -> None:
    assert run_at(SET_B, ServeBatch, poisson, 0.6, count=COUNT, seed=4).in_time < 0.5
    assert run_at(SET_B, headway(SET_B), poisson, 0.6, count=COUNT, seed=4).in_time == 1.0


def backlogged(setting: Setting, weights: dict[str, float]) -> Run:
    """Simulates 30 batches of four tenants whose queues are never empty."""
    streams = [Stream(rate_per_ms=1000.0, budget_ns=10**13, tenant=tenant) for tenant in "abcd"]
    policy = Headway(setting.law, 32, weights=weights, max_requests=10**6)
    run = simulate(mixed(8 * 32 * 30, 1, streams), policy, Device(law=setting.law), seed=1)
    del run.services[30:]
    return run


@pytest.mark.parametrize("weights", [{}, {"c": 2.0, "d": 4.0}], ids=["equal", "weighted"])
def test_backlogged_tenants_share_the_device_by_weight(weights: dict[str, float]) -> None:
    served = dict.fromkeys("abcd", 0.0)
    for _, by_tenant in backlogged(SET_C, weights).services:
        for tenant, device_ns in by_tenant.items():
            served[tenant] += device_ns / weights.get(tenant, 1.0)
    assert jain(served.values()) >= 0.98
    assert max(served.values()) - min(served.values()) <= 2 * SET_C.law.mean_ns(32)


def test_tenants_within_their_share_keep_their_answers_beside_one_that_floods() -> None:
    calm = [
        Stream(rate_per_ms=0.02 * SET_C.capacity_per_ms(), budget_ns=SET_C.budget_ns, tenant=f"calm {number}")
        for number in range(7)
    ]
    flood = Stream(rate_per_ms=1.25 * SET_C.capacity_per_ms(), budget_ns=SET_C.budget_ns, tenant="flood")
    workload = mixed(8000, 1, [*calm, flood])
    run = simulate(workload, Headway(SET_C.law, 64), Device(law=SET_C.law), seed=1)
    assert min(measure(workload, run, stream.tenant).in_time for stream in calm) >= 0.99
    greed = simulate(workload, Timeout(SET_C, max_rows=64), Device(law=SET_C.law), seed=1)
    assert max(measure(workload, greed, stream.tenant).in_time for stream in calm) <= 0.1


def test_greedy_without_a_limit_takes_as_long_as_theory_says() -> None:
    """Checks the simulator, not the core, against the mean latency of take-all batching with Poisson arrivals.

    It is close to (3/2) beta/(1-x) + (alpha/2)(x+2)/(1-x^2) with x = alpha*rate.
    """
    setting = SET_A
    x = 0.8
    rate = x / setting.law.alpha_ms
    workload = single(40_000, 1, Stream(rate_per_ms=rate, budget_ns=10**12))
    run = simulate(workload, Timeout(setting, max_rows=10_000), Device(law=setting.law, noise=0.0), seed=1)
    beta, alpha = setting.law.beta_ms, setting.law.alpha_ms
    theory_ms = 1.5 * beta / (1 - x) + alpha / 2 * (x + 2) / (1 - x * x)
    assert measure(workload, run).mean_ms == pytest.approx(theory_ms, rel=0.03)
