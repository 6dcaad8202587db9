"""Distributions of sizes and pauses, drawn with a seed."""

import random
from statistics import mean, median

import pytest

from loadtest.distribution import Distribution
from loadtest.spec import BadSpec


def drawn(text: str, count: int = 4000, seed: int = 1) -> list[float]:
    generator, distribution = random.Random(seed), Distribution.parse(text, "words")
    return [distribution.number(generator) for _ in range(count)]


def test_a_number_alone_is_always_that_number() -> None:
    assert set(drawn("8", count=10)) == {8.0}
    assert set(drawn("0.5", count=10)) == {0.5}


def test_each_kind_keeps_what_it_states() -> None:
    assert 1 <= min(drawn("uniform(1, 8)")) <= max(drawn("uniform(1, 8)")) <= 8
    assert median(drawn("lognormal(12, 0.6)")) == pytest.approx(12, rel=0.05)
    assert mean(drawn("exponential(2)")) == pytest.approx(2, rel=0.05)
    assert set(drawn("choice(1, 8, 64)")) == {1, 8, 64}


def test_equal_seeds_give_equal_numbers() -> None:
    assert drawn("lognormal(12, 0.6)", seed=3) == drawn("lognormal(12, 0.6)", seed=3)


def test_a_size_is_a_whole_number_and_at_least_one() -> None:
    assert Distribution.parse("0.2", "rows").size(random.Random(0)) == 1
    assert Distribution.parse("2.6", "rows").size(random.Random(0)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1", "words: .*must not be negative"),
        ("uniform(8, 1)", "words: expected 0 <= least <= most"),
        ("uniform(8)", r"words: .*it is uniform\(least, most\)"),
        ("normal(1, 2)", "words: no such kind 'normal'; there are choice, exponential, lognormal, uniform"),
        ("choice()", "words: expected one value or more"),
        ("uniform(least=1, 8)", "follows a named value"),
        ("inf", "words: no such kind 'inf'"),
    ],
)
def test_a_distribution_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadSpec, match=message):
        Distribution.parse(text, "words")
