"""Tests the circuit breaker with a story in numbers, and its promises under any order of events."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.breaker import OPEN_NS, Breaker, State

SECOND_NS = 1_000_000_000


def breaker(jitter: float = 0.0) -> Breaker:
    return Breaker(lambda: jitter)


def opened() -> Breaker:
    broken = breaker()
    for _ in range(6):
        assert broken.allows(0)
        broken.failed(0)
    return broken


def test_five_failures_are_tolerated_and_the_sixth_opens_it_for_thirty_seconds() -> None:
    broken = breaker()
    for _ in range(5):
        broken.failed(0)
        assert broken.allows(0)
    broken.failed(0)
    assert not broken.allows(0)
    assert not broken.allows(OPEN_NS - 1)
    assert broken.wait_ns(10 * SECOND_NS) == 20 * SECOND_NS
    assert broken.allows(OPEN_NS)


def test_a_success_in_between_forgives_the_failures() -> None:
    broken = breaker()
    for _ in range(20):
        broken.failed(0)
        broken.succeeded()
    assert broken.state is State.CLOSED


def test_one_probe_decides() -> None:
    broken = opened()
    assert [broken.allows(OPEN_NS) for _ in range(3)] == [True, False, False]
    broken.failed(OPEN_NS)
    assert not broken.allows(2 * OPEN_NS - 1)
    assert broken.allows(2 * OPEN_NS)
    broken.succeeded()
    assert all(broken.allows(2 * OPEN_NS) for _ in range(3))
    broken.failed(2 * OPEN_NS)
    assert broken.allows(2 * OPEN_NS)  # the failures before are forgiven


def test_a_mistake_of_the_caller_counts_for_nothing() -> None:
    broken = breaker()
    for _ in range(100):
        broken.ended(0)
    assert broken.allows(0)
    probing = opened()
    assert probing.allows(OPEN_NS)
    probing.ended(OPEN_NS)
    assert [probing.allows(OPEN_NS) for _ in range(2)] == [True, False]


def test_a_late_answer_from_before_does_not_close_it() -> None:
    broken = opened()
    broken.succeeded()
    assert not broken.allows(1)


def test_a_probe_that_never_ends_does_not_keep_it_open_for_ever() -> None:
    broken = opened()
    assert broken.allows(OPEN_NS)
    assert not broken.allows(2 * OPEN_NS - 1)
    assert broken.allows(2 * OPEN_NS)


@pytest.mark.parametrize("seed", range(5))
def test_it_stays_open_up_to_a_tenth_longer_so_that_replicas_do_not_probe_at_once(seed: int) -> None:
    broken = Breaker(random.Random(seed).random)
    for _ in range(6):
        broken.failed(0)
    assert OPEN_NS < broken.wait_ns(0) <= OPEN_NS * 1.1


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "succeeded", "failed", "ended"]), st.integers(0, OPEN_NS)), max_size=80)
)
def test_while_it_is_open_at_most_one_call_per_thirty_seconds_is_allowed(events: list[tuple[str, int]]) -> None:
    broken, now_ns, in_a_row, most = breaker(), 0, 0, 0
    probes: list[int] = []
    for event, pause_ns in events:
        now_ns += pause_ns
        if event == "ask":
            was = broken.state
            if broken.allows(now_ns) and was is not State.CLOSED:
                assert not probes or now_ns >= probes[-1] or was is State.OPEN
                probes.append(now_ns)
                assert not broken.allows(now_ns)
        elif event == "failed":
            broken.failed(now_ns)
            in_a_row += 1
            most = max(most, in_a_row)
            assert broken.state is not State.PROBING
        elif event == "succeeded":
            broken.succeeded()
            in_a_row = 0
        else:
            broken.ended(now_ns)
        if most <= 5 and not probes:
            assert broken.state is State.CLOSED
        assert (broken.wait_ns(now_ns) > 0) <= (broken.state is not State.CLOSED)
