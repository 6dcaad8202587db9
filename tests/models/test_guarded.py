"""Tests calls of another service from a model's code, behind a breaker."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from models.breaker import MOST_FAILURES, OPEN_NS, Answer, Guarded, State, Unreachable


class Service:
    """A service that fails while `fails` is set, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.fails = False
        self.calls = 0
        self.now_ns = 0

    def rate(self, currency: str, *, day: int = 0) -> float:
        self.calls += 1
        if currency == "?":
            raise KeyError(currency)
        if self.fails:
            raise ConnectionError("down")
        return len(currency) + day

    def guarded(self, **options: object) -> Guarded[..., float]:
        made: Callable[..., Guarded[..., float]] = Guarded
        return made(self.rate, now_ns=lambda: self.now_ns, random=lambda: 0.0, **options)


def opened(service: Service, rates: Guarded[..., float]) -> None:
    service.fails = True
    for _ in range(MOST_FAILURES + 1):
        rates("usd")
    assert rates.state is State.OPEN


def test_while_the_service_answers_its_answers_are_passed_on() -> None:
    service = Service()
    assert service.guarded()("usd", day=4) == Answer(7.0, is_fallback=False)


def test_a_failed_call_is_answered_by_the_latest_answer_to_equal_arguments_else_by_the_default() -> None:
    service = Service()
    rates = service.guarded(default=-1.0)
    rates("usd")
    service.fails = True
    assert rates("usd") == (3.0, True)
    assert rates("euro") == (-1.0, True)
    assert rates("usd", day=1) == (-1.0, True)


def test_without_any_answer_the_error_is_raised() -> None:
    service = Service()
    rates = service.guarded()
    service.fails = True
    for _ in range(MOST_FAILURES + 1):
        with pytest.raises(ConnectionError):
            rates("usd")
    with pytest.raises(Unreachable):
        rates("usd")


def test_after_repeated_failures_the_service_is_left_alone_for_thirty_seconds_and_then_probed_once() -> None:
    service = Service()
    rates = service.guarded(default=-1.0)
    opened(service, rates)
    calls = service.calls
    service.now_ns = OPEN_NS - 1
    assert rates("usd") == (-1.0, True)
    assert service.calls == calls
    service.now_ns = OPEN_NS
    rates("usd")
    rates("usd")
    assert service.calls == calls + 1
    service.fails = False
    service.now_ns = 3 * OPEN_NS
    assert rates("usd") == (3.0, False)
    assert rates.state is State.CLOSED


def test_mistakes_of_the_caller_are_raised_and_open_nothing() -> None:
    service = Service()
    rates = service.guarded(default=-1.0, mistakes=(KeyError,))
    for _ in range(3 * MOST_FAILURES):
        with pytest.raises(KeyError):
            rates("?")
    assert rates.state is State.CLOSED


def test_answers_are_remembered_for_a_bounded_number_of_arguments() -> None:
    service = Service()
    rates = service.guarded(default=-1.0, remembers=2)
    for currency in ("a", "bb", "ccc"):
        rates(currency)
    service.fails = True
    assert [rates(currency).value for currency in ("a", "bb", "ccc")] == [-1.0, 2.0, 3.0]


def test_arguments_that_cannot_be_hashed_are_answered_by_the_default() -> None:
    calls = iter([1.0])
    guarded = Guarded(lambda numbers: next(calls), default=-1.0, mistakes=())
    assert guarded([1]) == (1.0, False)
    assert guarded([1]) == (-1.0, True)


def test_only_one_of_many_threads_probes() -> None:
    service = Service()
    rates = service.guarded(default=-1.0)
    opened(service, rates)
    service.now_ns = OPEN_NS
    calls, together = service.calls, Barrier(8)

    def ask(_: int) -> Answer[float]:
        together.wait()
        return rates("usd")

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == {Answer(-1.0, True)}
    assert service.calls == calls + 1
