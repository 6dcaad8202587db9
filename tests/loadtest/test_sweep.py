"""The search for the highest rate, against servers given by a formula."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.load import Load
from loadtest.result import Run
from loadtest.sweep import Sweep, sweep, sweep_from_json, text, write_sweep
from tests.loadtest.results import LOAD, run, shot


def server(capacity: float) -> Callable[[Load], Run]:
    """Simulates a server that answers in time up to its capacity and is too late for all shots above it."""

    def take(load: Load) -> Run:
        return run([shot(at, 20 if load.rate <= capacity else 500) for at in range(0, 1000, 10)])

    return take


@pytest.mark.parametrize("capacity", [3.0, 90.0, 100.0, 317.0, 5000.0])
def test_the_capacity_is_found_within_the_precision_from_below_and_above(capacity: float) -> None:
    found = sweep(LOAD, server(capacity), precision=0.05)
    assert found.best is not None
    assert capacity / 1.06 <= found.best <= capacity


def test_both_sides_of_the_edge_get_all_their_runs() -> None:
    found = sweep(LOAD, server(300), repeat=5)
    assert found.best is not None
    assert found.lowest_failing is not None
    assert found.holds(found.best) == (5, 5)
    assert found.holds(found.lowest_failing) == (0, 5)
    assert f"{found.best:g} requests per second" in text(found)
    assert "in more than 55% of all such runs" in text(found)


def test_rates_far_from_the_edge_are_not_run_more_often_than_needed() -> None:
    found = sweep(LOAD, server(5000), repeat=3)
    assert found.holds(LOAD.rate) == (2, 2)


def test_a_noisy_edge_is_decided_by_most_runs() -> None:
    generator = random.Random(1)

    def take(load: Load) -> Run:
        return server(300 * generator.choice([1, 1, 1, 1, 0.5]))(load)

    found = sweep(LOAD, take, repeat=5)
    assert found.best is not None
    assert 100 <= found.best <= 300


def test_a_server_that_meets_the_objective_at_no_rate_is_reported() -> None:
    found = sweep(LOAD, server(0))
    assert found.best is None
    assert "No rate was found" in text(found)


def test_a_sweep_whose_edge_is_the_generators_own_says_so() -> None:
    def take(load: Load) -> Run:
        late = 0.0 if load.rate <= 400 else 300.0
        return run([shot(at, 20 + late, late_ms=late) for at in range(0, 1000, 10)])

    found = sweep(LOAD, take)
    assert found.best == 400
    assert "the generator was the bottleneck, so the server may do more" in text(found)


def test_no_rate_above_the_stated_one_is_run() -> None:
    assert max(sweep(LOAD, server(1e9), most=1000).rates) <= 1000


def test_each_run_has_a_seed_of_its_own() -> None:
    seeds: list[int] = []

    def take(load: Load) -> Run:
        seeds.append(load.seed)
        return server(300)(load)

    sweep(LOAD, take)
    assert len(set(seeds)) == len(seeds)


def test_a_sweep_survives_being_written_and_read(tmp_path: Path) -> None:
    found = sweep(LOAD, server(300))
    write_sweep(tmp_path / "sweep.json", found)
    read = sweep_from_json(json.loads((tmp_path / "sweep.json").read_text()), tmp_path)
    assert isinstance(read, Sweep)
    assert (read.best, list(read.points)) == (found.best, list(found.points))
