"""Tests that the events of an engine are counted, with a real engine and a scripted model."""

import asyncio

import numpy as np

from models.spec import Limits
from serving.core.batch import Batch, CutReason
from serving.core.errors import BatchTimeout
from serving.core.outcome import Cancelled, Expired, Failed, Reason, Rejected, Timings
from serving.runtime.engine import Engine
from serving.telemetry.recorder import Recorder
from serving.testing.models import POISON, ScriptedModel
from tests.core.stories import ms, request


def batch(*requests: object, padded_rows: int, length: int = 1, start_ms: float = 0, finish_ms: float = 10) -> Batch:
    return Batch(
        id=1,
        lane_index=0,
        requests=list(requests),
        rows=sum(one.rows for one in requests),
        padded_rows=padded_rows,
        length=length,
        cut_ns=0,
        start_ns=ms(start_ms),
        finish_ns=ms(finish_ms),
        charged_ns=0,
        reason=CutReason.FULL,
    )


def test_every_request_of_an_engine_is_counted_once_whatever_became_of_it() -> None:
    recorder = Recorder()
    model = ScriptedModel(limits=Limits(max_batch_rows=4))

    async def story() -> Engine:
        async with Engine([model], observer=recorder, batches_per_lane=1) as engine:
            values = [1.0, 2.0, POISON, 3.0]
            tickets = [engine.submit({"x": np.full((1, 4), one, np.float32)}, rows=1, tenant="a") for one in values]
            tickets.append(engine.submit({"x": np.zeros((9, 4), np.float32)}, rows=9, tenant="b"))
            await asyncio.gather(*tickets)
        return engine

    engine = asyncio.run(story())
    counts = recorder.counts()
    assert counts.request_ns.count() == counts.queue_ns.count() == engine.statistics().success.count == 3
    assert counts.ended == {("failed", "model_error"): 1, ("rejected", "too_large"): 1}
    assert counts.request_ns.count() + counts.ended.total() == engine.ledger.snapshot().received
    assert {name: one.requests for name, one in counts.tenants.items()} == {"a": 4, "b": 1}
    assert sum(counts.cuts.values()) == counts.batch_rows.count() == counts.batch_ns.count() == 1
    assert counts.batch_rows.total == 4
    assert counts.tenants["a"].device_ns == counts.batch_ns.total


def test_outcomes_and_reasons_have_names_from_small_sets() -> None:
    recorder = Recorder()
    for outcome in (
        Rejected(Reason.DEADLINE_HOPELESS, 0),
        Expired(5),
        Cancelled(),
        Failed(BatchTimeout("did not come back")),
    ):
        recorder.request_ended("", outcome)
    assert set(recorder.counts().ended) == {
        ("rejected", "deadline_hopeless"),
        ("expired", ""),
        ("cancelled", ""),
        ("failed", "batch_timeout"),
    }


def test_waste_counts_padded_rows_and_padded_length() -> None:
    recorder = Recorder()
    recorder.batch_settled(batch(request(rows=3), padded_rows=4), ms(5))
    recorder.batch_settled(batch(request(rows=2, length=10), request(length=30), padded_rows=4, length=32), ms(5))
    counts = recorder.counts()
    assert counts.cells_asked == 3 + 2 * 10 + 30
    assert counts.cells_computed == 4 + 4 * 32


def test_a_batch_is_compared_with_its_prediction() -> None:
    recorder = Recorder()
    recorder.batch_settled(batch(request(), padded_rows=1, start_ms=5, finish_ms=15), ms(9))
    recorder.batch_settled(batch(request(), padded_rows=1, start_ms=5, finish_ms=15), ms(22))
    shares = recorder.counts().bound_shares
    assert dict(zip(shares.bounds, shares.counts, strict=False))[0.9] == 1
    assert dict(zip(shares.bounds, shares.counts, strict=False))[4.0] == 1


def test_copies_to_the_device_and_back_count_for_each_request_of_their_batch() -> None:
    recorder = Recorder()
    recorder.batch_settled(batch(request(), request(), padded_rows=2), ms(5), ms(1), ms(2))
    recorder.batch_settled(batch(request(), padded_rows=1), ms(5))
    counts = recorder.counts()
    assert (counts.copied_in.count, counts.copied_in.ns) == (2, ms(2))
    assert (counts.copied_out.count, counts.copied_out.ns) == (2, ms(4))


def test_a_generation_counts_with_its_time_to_the_first_answer_and_to_the_last() -> None:
    recorder = Recorder()
    recorder.generated("acme", ms(1), ms(10), ms(100), 7)
    recorder.generated("acme", ms(1), 0, ms(2), 0)
    counts = recorder.counts()
    assert (counts.request_ns.count(), counts.request_ns.total) == (2, ms(102))
    assert (counts.first_ns.count(), counts.first_ns.total) == (1, ms(10))
    assert (counts.answers, counts.tenants["acme"].requests) == (7, 2)


def test_tenants_pay_for_their_rows_of_a_batch_they_share() -> None:
    recorder = Recorder()
    shared = batch(request(tenant="a", rows=3), request(tenant="b", rows=1), padded_rows=4)
    recorder.batch_settled(shared, ms(8))
    recorder.requests_completed(shared.requests, [0, 0], Timings(0, ms(8), 0, 4))
    counts = recorder.counts().tenants
    assert (counts["a"].device_ns, counts["b"].device_ns) == (ms(6), ms(2))
