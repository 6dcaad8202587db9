"""Schedules of arrivals, without waiting."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev

import pytest

from loadtest.arrivals import ARRIVALS, SECOND_NS, bursts, constant, poisson, ramp, replay, schedule, sinusoid
from loadtest.shot import Shot, write_shots
from loadtest.spec import BadSpec

RANDOM = ["poisson", "bursts", "ramp(to=200)", "sinusoid"]


def between(found: tuple[int, ...], start_s: float, end_s: float) -> int:
    return sum(start_s * SECOND_NS <= instant < end_s * SECOND_NS for instant in found)


def test_constant_arrivals_are_evenly_spaced_and_begin_at_once() -> None:
    assert constant(rate=4, seconds=1) == (0, 250_000_000, 500_000_000, 750_000_000)


def test_constant_arrivals_do_not_drift_where_the_gap_is_no_whole_number() -> None:
    found = constant(rate=3, seconds=1000)
    assert len(found) == 3000
    assert found[2997] == 999 * SECOND_NS


def test_poisson_arrivals_keep_the_rate_and_stay_within_the_time() -> None:
    found = poisson(rate=1000, seconds=20, seed=1)
    assert len(found) == pytest.approx(20_000, rel=0.03)
    assert found[-1] < 20 * SECOND_NS
    assert list(found) == sorted(found)


def test_gaps_of_poisson_arrivals_vary_as_much_as_they_are_long() -> None:
    gaps = [later - earlier for earlier, later in pairwise(poisson(rate=1000, seconds=20, seed=2))]
    assert pstdev(gaps) == pytest.approx(mean(gaps), rel=0.05)


def test_bursts_keep_the_mean_rate_and_put_the_stated_part_of_it_into_the_bursts() -> None:
    found = bursts(rate=1000, seconds=20, seed=3, peak=5, duty=0.1, period=1)
    assert len(found) == pytest.approx(20_000, rel=0.03)
    inside = sum(instant % SECOND_NS < SECOND_NS // 10 for instant in found)
    assert inside == pytest.approx(10_000, rel=0.05)


def test_bursts_may_be_all_there_is() -> None:
    found = bursts(rate=100, seconds=5, peak=4, duty=0.25, period=1)
    assert all(instant % SECOND_NS < SECOND_NS // 4 for instant in found)


def test_a_ramp_begins_and_ends_at_its_rates() -> None:
    found = ramp(rate=100, seconds=100, seed=4, to=900)
    assert len(found) == pytest.approx(50_000, rel=0.03)
    assert between(found, 0, 10) == pytest.approx(1400, rel=0.1)
    assert between(found, 90, 100) == pytest.approx(8600, rel=0.05)


def test_a_sinusoid_swings_around_its_rate() -> None:
    found = sinusoid(rate=1000, seconds=40, seed=5, swing=0.8, period=40)
    assert between(found, 0, 20) == pytest.approx(1000 * 20 * (1 + 0.8 * 2 / 3.14159), rel=0.05)
    assert between(found, 20, 40) == pytest.approx(1000 * 20 * (1 - 0.8 * 2 / 3.14159), rel=0.1)


def test_a_replay_keeps_the_gaps_of_the_trace_and_begins_at_once(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"at_s": 100.5}\n{"at_s": 100.0}\n\n102\n')
    assert replay(seconds=10, file=str(trace)) == (0, SECOND_NS // 2, 2 * SECOND_NS)
    assert schedule(f"replay({trace}, speed=2)", rate=0, seconds=0.9) == (0, SECOND_NS // 4)


def test_the_shots_of_a_run_can_be_replayed(tmp_path: Path) -> None:
    write_shots(tmp_path / "shots.jsonl", [Shot(5), Shot(12)])
    assert replay(seconds=1, file=str(tmp_path / "shots.jsonl")) == (0, 7)


@pytest.mark.parametrize(
    ("text", "message"), [("", "contains no instants"), (json.dumps({"x": 1}), "neither at_s nor planned_ns")]
)
def test_a_trace_without_instants_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "trace").write_text(text)
    with pytest.raises(BadSpec, match=message):
        schedule(f"replay({tmp_path / 'trace'})", rate=1, seconds=1)


def test_a_trace_that_is_not_there_is_refused_by_its_name() -> None:
    with pytest.raises(BadSpec, match=r"arrivals: .*nowhere"):
        schedule("replay(/nowhere)", rate=1, seconds=1)


@pytest.mark.parametrize("text", RANDOM)
def test_equal_seeds_give_equal_schedules_and_others_others(text: str) -> None:
    assert schedule(text, 100, 1, 7) == schedule(text, 100, 1, 7)
    assert schedule(text, 100, 1, 7) != schedule(text, 100, 1, 8)


@pytest.mark.parametrize("text", ["constant", *RANDOM])
@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_rate_or_time_that_is_not_positive_is_refused(text: str, rate: float, seconds: float) -> None:
    with pytest.raises(BadSpec, match="must be positive"):
        schedule(text, rate, seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("often", "arrivals: no such kind 'often'; there are bursts, constant"),
        ("bursts(peak=20)", "at most 1, got 20.0 times 0.1"),
        ("ramp", r"it is ramp\(to\)"),
        ("sinusoid(swing=2)", "swing: must be at most 1, got 2.0"),
        ("ramp(to=fast)", "to: must be positive, got fast"),
        ("bursts(high=3)", "unexpected keyword argument 'high'"),
        ("3 per second", r"expected name\(value, key=value\)"),
    ],
)
def test_arrivals_that_make_no_sense_are_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        schedule(text, rate=10, seconds=1)


def test_every_kind_can_be_called_by_its_name() -> None:
    assert set(ARRIVALS) == {"constant", "poisson", "bursts", "ramp", "sinusoid", "replay"}
