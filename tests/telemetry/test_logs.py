"""Tests the log of requests: it is readable, a sample under load, without payloads, and never blocks requests."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from serving.core.outcome import Reason, Rejected
from serving.telemetry.deferred import Deferred
from serving.telemetry.logs import RequestLog
from tests.core.stories import ms
from tests.telemetry.exchanges import exchange

_names = count()


class Kept(logging.Handler):
    """A handler that keeps records and blocks while its gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.gate = threading.Event()
        self.gate.set()

    def emit(self, record: logging.LogRecord) -> None:
        assert self.gate.wait(20)
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[tuple[logging.Logger, Kept]]:
    logger, handler = logging.getLogger(f"test-logs-{next(_names)}"), Kept()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger, handler
    handler.gate.set()
    logger.removeHandler(handler)


async def until(condition: Callable[[], Any]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.01)


def logged(logger: logging.Logger, kept: Kept, *exchanges: Any, per_s: int = 100, lines: int) -> list[Any]:
    async def story() -> None:
        log = RequestLog(logger, model="scorer", version="3", per_s=per_s)
        for one in exchanges:
            log.answered(one)
        await until(lambda: len(kept.records) >= lines)

    asyncio.run(story())
    return kept.records


def test_a_line_is_a_sentence_for_people_and_fields_for_programs(kept: tuple[logging.Logger, Kept]) -> None:
    (record,) = logged(*kept, exchange(traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"), lines=1)
    assert (
        record.getMessage() == "scorer: completed 200 in 60.0 ms (queue 20.0, compute 30.0, 4 rows); "
        "request abc-1, tenant acme"
    )
    fields = {"request_id": "abc-1", "tenant": "acme", "model": "scorer", "version": "3", "wire": "http", "status": 200}
    fields |= {"outcome": "completed", "queue_ms": 20.0, "compute_ms": 30.0, "total_ms": 60.0, "stands_for": 1}
    fields |= {"trace_id": "1" * 32}
    assert {name: getattr(record, name) for name in fields} == fields


def test_nothing_of_the_payload_is_logged(kept: tuple[logging.Logger, Kept]) -> None:
    (record,) = logged(*kept, exchange(), lines=1)
    assert "payload" not in str(record.__dict__)


def test_a_refusal_says_why(kept: tuple[logging.Logger, Kept]) -> None:
    refused = exchange(status=503, outcome=Rejected(Reason.QUEUE_FULL, 0), tenant="")
    (record,) = logged(*kept, refused, lines=1)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "scorer: rejected 503 in 60.0 ms, queue_full; request abc-1"


def test_a_message_that_cannot_be_decoded_is_logged_too(kept: tuple[logging.Logger, Kept]) -> None:
    (record,) = logged(*kept, exchange(status=400, outcome=None), lines=1)
    assert record.outcome == "unreadable"


def test_under_load_it_is_a_sample_with_the_number_of_requests_per_line(kept: tuple[logging.Logger, Kept]) -> None:
    good = [exchange(ended_ns=ms(1060) + ms(number)) for number in range(2500)]  # 1000 per second
    bad = [exchange(status=503, outcome=Rejected(Reason.QUEUE_FULL, 0), ended_ns=one.ended_ns) for one in good]
    records = logged(*kept, *[one for pair in zip(good, bad, strict=True) for one in pair], per_s=5, lines=30)
    assert len(records) == 2 * 3 * 5  # two kinds, five per second, three seconds
    lines = [record.stands_for for record in records if record.status == 200]
    assert sum(lines) == 2005  # the lines of the third second stand for its first requests only
    assert any("; one of 996" in record.getMessage() for record in records)


def test_a_log_that_cannot_be_written_blocks_no_request() -> None:
    gate = threading.Event()
    done: list[int] = []

    def work(numbers: list[int]) -> None:
        assert gate.wait(20)
        done.extend(numbers)

    async def story() -> None:
        deferred = Deferred(work, wait_s=0.001, most=10)
        deferred.put(0)
        await until(lambda: not deferred._kept)  # the thread has taken it and is blocked
        for number in range(1, 101):
            deferred.put(number)
        assert deferred.dropped == 90
        gate.set()
        await until(lambda: len(done) == 11)

    asyncio.run(story())
    assert done == list(range(11))
