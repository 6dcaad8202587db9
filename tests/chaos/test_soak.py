"""Tests the soak's verdict on made-up measurements."""

from tests.chaos.soak import Look, grown


def looks(memory_mb: list[float]) -> list[Look]:
    return [{"memory_mb": value, "descriptors": 100.0, "tasks": 10.0} for value in memory_mb]


def test_memory_that_grows_after_the_warm_up_is_reported_from_and_to() -> None:
    assert grown(looks([500.0] * 10 + [600.0] * 10 + [700.0] * 10)) == {"memory_mb": (600.0, 700.0)}


def test_growth_while_it_warms_up_and_a_little_noise_are_no_leak() -> None:
    assert grown(looks([100.0] * 10 + [600.0, 610.0] * 5 + [605.0, 615.0] * 5)) == {}


def test_descriptors_that_stay_open_are_reported() -> None:
    leaking = [{"memory_mb": 1.0, "descriptors": 10.0 * number, "tasks": 1.0} for number in range(30)]
    assert set(grown(leaking)) == {"descriptors"}
