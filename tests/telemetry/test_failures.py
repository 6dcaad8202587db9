"""Tests that failures in a model's code are logged with their tracebacks."""

import logging

import pytest

from serving.core.errors import ModelError
from serving.core.outcome import Completed, Expired, Failed, Outcome, Timings
from serving.core.witness import Exchange
from serving.runtime.answers import as_model_error
from serving.telemetry.failures import AGAIN_NS, MOST_KINDS, FailureLog

LOGGER = logging.getLogger("tests.failures")


def deep(levels: int, error: Exception) -> None:
    if levels:
        deep(levels - 1, error)
    else:
        raise error


def failed(error: Exception, levels: int = 6) -> Failed:
    try:
        deep(levels, error)
    except Exception as raised:
        return Failed(as_model_error(raised))
    raise AssertionError


def answer(log: FailureLog, outcome: Outcome, *, id: str = "mine", at_ns: int = 1) -> None:
    log.answered(Exchange("http", id, "", 500, outcome, "", 0, 0, at_ns))


def test_a_failure_six_calls_deep_is_logged_with_its_traceback_and_the_requests_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer(FailureLog(LOGGER, model="scorer"), failed(ValueError("unlucky")))
    (record,) = caplog.records
    assert record.getMessage() == "scorer: request mine failed in the model's code"
    assert record.levelno == logging.ERROR
    assert "ValueError: unlucky" in caplog.text
    assert "in failed" in caplog.text
    assert "in deep\n    raise error" in caplog.text


def test_a_kind_of_failure_is_logged_once_a_minute_with_how_many_there_were(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(LOGGER, model="scorer")
    for number in range(1000):
        answer(log, failed(ValueError(f"unlucky {number}")), at_ns=1 + number)
    assert len(caplog.records) == 1
    answer(log, failed(ValueError("again")), id="later", at_ns=1 + AGAIN_NS)
    assert caplog.records[-1].getMessage() == "scorer: request later, and 999 more like it failed in the model's code"
    answer(log, failed(KeyError("another type")), at_ns=2 + AGAIN_NS)
    assert len(caplog.records) == 3


def test_an_id_with_line_breaks_and_escapes_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    answer(FailureLog(LOGGER, model="scorer"), failed(ValueError()), id="a\nb\x1b[2J" + "c" * 1000)
    message = caplog.records[0].getMessage()
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 300


def test_failures_outside_the_models_code_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(LOGGER, model="scorer")
    answer(log, Failed(ModelError("the model returned no output 'y'")))
    answer(log, Expired(1))
    answer(log, Completed(None, 0, Timings(0, 0, 0, 1)))
    assert not caplog.records


def test_the_number_of_remembered_kinds_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    log = FailureLog(LOGGER, model="scorer")
    for number in range(3 * MOST_KINDS):
        answer(log, failed(type(f"Odd{number}", (Exception,), {})()))
    assert len(log._logged) == MOST_KINDS
