"""Measures the CPU per request of metrics, request log and request ids, and the cost of a scrape.

    python -m benchmarks.bench_telemetry [--rounds 7]

Runs with and without them alternate. Medians over the rounds; the difference is computed per round. CPU of all threads,
not wall time. With small batches the hand-over between threads varies by more than the cost to be measured, so the
recorder is also timed alone, on one batch.
"""

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence
from statistics import median

import numpy as np

from benchmarks.bench_engine import SPEC, run
from models.loading import load_model
from serving.api.exchange import new_id, notify, now_ns
from serving.api.served import ServedModel
from serving.cluster.replica.snapshots import SnapshotSource
from serving.core.batch import Batch
from serving.core.observer import NullObserver, Observer
from serving.core.outcome import Completed, Timings
from serving.core.request import Request
from serving.core.statistics import WireTimes
from serving.protocol.messages import TensorDescription
from serving.runtime.engine import Engine
from serving.telemetry.logs import RequestLog
from serving.telemetry.prometheus import exposition
from serving.telemetry.recorder import Recorder
from serving.telemetry.snapshot import ClusterSnapshot, ModelSnapshot
from serving.testing.backend import EchoBackend


async def us_per_request(observer: Observer, rows_per_batch: int, batches: int, tenants: int) -> float:
    payload = {"x": np.zeros((1, 1024), np.float32)}
    names = [f"tenant-{number % tenants}" for number in range(rows_per_batch)]
    async with Engine([load_model(SPEC)], observer=observer) as engine:
        engine.batcher.sizes.largest_rows = rows_per_batch
        began = time.process_time()
        for _ in range(batches):
            await asyncio.gather(*[engine.submit(payload, rows=1, tenant=name) for name in names])
        return (time.process_time() - began) * 1e6 / (batches * rows_per_batch)


class Remembering(Recorder):
    """A recorder that keeps the arguments of its last calls, to repeat them."""

    def requests_completed(self, requests: Sequence[Request], waits_ns: list[int], timings: Timings) -> None:
        self.completed = (requests, waits_ns, timings)
        super().requests_completed(requests, waits_ns, timings)

    def batch_settled(self, batch: Batch, occupied_ns: int, copied_in_ns: int = 0, copied_out_ns: int = 0) -> None:
        self.settled = (batch, occupied_ns, 1000, 1000)  # as if the device reported copy times
        super().batch_settled(*self.settled)


def us_alone(rows_per_batch: int, tenants: int, calls: int = 20_000) -> float:
    """Returns the CPU us per request of the recorder alone."""
    recorded = Remembering()
    run(us_per_request(recorded, rows_per_batch, 3, tenants))
    recorder = Recorder()
    began = time.process_time()
    for _ in range(calls):
        recorder.batch_settled(*recorded.settled)
        recorder.requests_completed(*recorded.completed)
    return (time.process_time() - began) * 1e6 / (calls * len(recorded.completed[0]))


def us_of_log_and_name(calls: int = 200_000) -> tuple[float, float]:
    """Returns the CPU us of (notifying a witness that samples, generating a request's id and writing its header)."""
    log = RequestLog(logging.getLogger("bench"), model="m", version="1", per_s=0)
    x = TensorDescription("x", "FP32", (-1, 2))
    served = ServedModel(name="m", backend=EchoBackend(), inputs=(x,), outputs=(x,), witnesses=(log,))
    outcome = Completed({}, 1_000_000, Timings(0, 1_000_000, 0, 1))
    began = time.process_time()
    for _ in range(calls):
        notify(served, "http", "id", "tenant", 200, outcome, "", now_ns(), now_ns())
    logged = time.process_time() - began
    began = time.process_time()
    for _ in range(calls):
        b"x-request-id: %b\r\n" % new_id()
    return logged * 1e6 / calls, (time.process_time() - began) * 1e6 / calls


def us_on_the_wire(calls: int = 200_000) -> float:
    """Returns the CPU us of timing the decoding of a request and the encoding of its answer."""
    wire = WireTimes()
    began = time.process_time()
    for _ in range(calls):
        began_ns = now_ns()
        wire.decode.add(now_ns() - began_ns)
        settled_ns = now_ns()
        wire.encode.add(now_ns() - settled_ns)
    return (time.process_time() - began) * 1e6 / calls


async def us_per_scrape(replicas: int) -> tuple[float, float, int]:
    """Returns (CPU us of one snapshot, CPU us of the exposition of this many replicas, its bytes)."""
    recorder = Recorder()
    async with Engine([load_model(SPEC)], observer=recorder) as engine:
        payload = {"x": np.zeros((1, 1024), np.float32)}
        for tenant in range(30):
            await engine.submit(payload, rows=1, tenant=f"tenant-{tenant}")
        teller = SnapshotSource(engine, recorder, replica="a", node="b")
        began = time.process_time()
        for _ in range(100):
            snapshot = teller.snapshot()
        took = (time.process_time() - began) * 1e4
        model = ModelSnapshot(
            name="noop",
            version="1",
            state="READY",
            reason="",
            running=replicas,
            wanted=replicas,
            limit=None,
            silent=0,
            replicas=(snapshot,) * replicas,
        )
        began = time.process_time()
        for _ in range(10):
            text = exposition(ClusterSnapshot(models=(model,), took_ns=0))
        return took, (time.process_time() - began) * 1e5, len(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print("rows per batch   tenants   CPU us/request without   with   difference   recorder alone")
    for rows, tenants in ((1, 1), (8, 1), (32, 1), (32, 8), (128, 1)):
        batches = 12000 // rows
        run(us_per_request(NullObserver(), rows, batches // 10, tenants))
        pairs = [
            (
                run(us_per_request(NullObserver(), rows, batches, tenants)),
                run(us_per_request(Recorder(), rows, batches, tenants)),
            )
            for _ in range(rounds)
        ]
        without, with_it = (median(column) for column in zip(*pairs, strict=True))
        difference = median(after - before for before, after in pairs)
        print(
            f"{rows:14d} {tenants:9d} {without:24.2f} {with_it:6.2f} {difference:12.2f} {us_alone(rows, tenants):16.2f}"
        )
    logged_us, named_us = us_of_log_and_name()
    print(f"notifying the sampled request log: {logged_us:.2f} us; a request id in the answer: {named_us:.2f} us")
    print(f"timing of decoding and encoding: {us_on_the_wire():.2f} us")
    snapshot_us, text_us, size = run(us_per_scrape(16))
    print(f"a snapshot: {snapshot_us:.0f} us; the text of 16 replicas: {text_us / 1e3:.1f} ms, {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
