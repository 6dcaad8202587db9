"""Comparing two results: better, worse, or no significant difference."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.comparison import compare, text
from loadtest.result import Run, write_result
from loadtest.significance import at_least, bootstrap_ratio, rank_test
from tests.loadtest.results import LOAD, result, run, shot, steady


def noisy(seed: int, mean_ms: float, seconds: int = 10) -> Run:
    generator = random.Random(seed)
    return run([shot(at, generator.gauss(mean_ms, mean_ms / 10)) for at in range(0, 1000 * seconds, 10)])


def test_the_rank_test_is_exact_for_few_runs() -> None:
    assert rank_test([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert rank_test([5, 6, 7, 8], [1, 2, 3, 4]) == pytest.approx(2 / 70)
    assert rank_test([1, 2], [1, 2]) == 1.0
    # Expected from the table of the Mann-Whitney test: U = 4 for 5 and 5.
    assert rank_test([1, 2, 3, 5, 9], [4, 6, 7, 8, 10]) == pytest.approx(0.151, abs=0.001)


def test_where_nothing_differs_the_rank_test_says_so_nineteen_times_in_twenty() -> None:
    generator = random.Random(1)
    said = [
        rank_test([generator.random() for _ in range(5)], [generator.random() for _ in range(5)]) < 0.05
        for _ in range(400)
    ]
    assert sum(said) / len(said) <= 0.06


def test_many_runs_are_tested_by_drawing_deals() -> None:
    assert rank_test(list(range(15)), list(range(15, 30))) < 0.001


def test_the_interval_of_a_ratio_holds_the_true_one_about_nineteen_times_in_twenty() -> None:
    generator, held = random.Random(2), 0
    for _ in range(40):
        before, after = ([generator.gauss(mean, 5) for _ in range(25)] for mean in (100.0, 110.0))
        low, high = bootstrap_ratio(before, after, lambda values: sum(values) / len(values))
        held += low <= 1.1 <= high
    assert held >= 34


def test_confidence_grows_with_the_runs_that_held() -> None:
    assert at_least(5, 5) == pytest.approx(0.05 ** (1 / 5), abs=1e-6)
    assert at_least(3, 3) < at_least(5, 5) < at_least(20, 20)
    assert at_least(0, 3) == 0.0


def test_repeated_runs_are_compared_by_ranks_and_a_slower_server_is_worse() -> None:
    found = compare(
        result(*(noisy(seed, 20) for seed in range(4))), result(*(noisy(seed, 30) for seed in range(10, 14)))
    )
    assert "rank-sum test over 4 and 4 runs" in found.method
    assert (found.headline.figure.name, found.headline.verdict) == ("p99 ms", "worse")
    assert found.headline.ratio == pytest.approx(1.5, rel=0.1)


def test_goodput_decides_where_an_objective_was_missed() -> None:
    slow = [noisy(seed, 49) for seed in range(4)]
    found = compare(result(*(noisy(seed, 20) for seed in range(4))), result(*slow))
    assert (found.headline.figure.name, found.headline.verdict) == ("goodput per s", "worse")


def test_two_single_runs_of_the_same_server_show_no_difference() -> None:
    found = compare(result(noisy(1, 20)), result(noisy(2, 20)))
    assert "bootstrap" in found.method
    assert found.headline.verdict == "no difference shown"
    assert "No real difference was shown" in text(found)


def test_two_single_runs_of_different_servers_do() -> None:
    assert compare(result(noisy(1, 30)), result(noisy(2, 20))).headline.verdict == "better"


def test_too_short_results_are_refused_instead_of_judged() -> None:
    with pytest.raises(ValueError, match="too short: at least 8 s of each, or 4 runs"):
        compare(result(steady(5, 20)), result(steady(5, 20)))


def test_loads_that_differ_are_named() -> None:
    found = compare(result(noisy(1, 20)), result(noisy(2, 20), load=replace(LOAD, rate=200)))
    assert found.remarks == ["the loads differ in rate: 100 and 200"]


@pytest.mark.parametrize(("second_ms", "code"), [(40, 1), (20, 0)])
def test_compare_sets_the_exit_status(tmp_path: Path, second_ms: float, code: int) -> None:
    for name, took_ms in (("first", 30.0), ("second", second_ms)):
        write_result(tmp_path / name, result(noisy(1, took_ms)))
    assert main(["compare", str(tmp_path / "first"), str(tmp_path / "second")]) == code
