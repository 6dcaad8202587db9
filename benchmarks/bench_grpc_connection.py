"""Microseconds of CPU per gRPC call in the fast door alone: HTTP/2 in, a backend that answers at once, HTTP/2 out.

    python -m benchmarks.bench_grpc_connection [--calls N] [--rounds R]

No sockets, no engine. 32 calls arrive in one read, each with 4 KB, as from HAProxy; their header blocks are recognised.
Prints the fastest of the rounds: other work on the machine only adds to a round. Compare only with numbers of the same
machine, interleaved: run it alternately in two checkouts.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
from hpack import Encoder

from serving.api.admission.gate import Gate
from serving.api.admission.quota import Quota
from serving.api.entry import ModelEntry
from serving.api.grpc.call import Head
from serving.api.grpc.connection import GrpcConnection
from serving.api.grpc.service import INFER, GrpcService
from serving.api.operations import Operations
from serving.api.served import ServedModel
from serving.core.outcome import Completed, Outcome
from serving.protocol import http2
from serving.protocol.messages import TensorDescription
from serving.protocol.pb import message
from serving.testing.backend import QUEUE_NS, TIMINGS, EchoBackend

TOGETHER = 32
ARRAY = np.arange(1024, dtype=np.float32).reshape(1, 1024)
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", INFER), (":authority", "127.0.0.1:8001"),
    ("content-type", "application/grpc"), ("te", "trailers"), ("grpc-accept-encoding", "identity, deflate, gzip"),
    ("user-agent", "grpc-python/1.66.1 grpc-c/43.0.0 (linux; chttp2)"),
]  # fmt: skip


class Answered:
    """A request that is answered when it is submitted."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome

    def __await__(self) -> Generator[Any, None, Outcome]:
        yield from ()
        return self._outcome

    def then(self, callback: Callable[[Outcome], None]) -> None:
        callback(self._outcome)

    def cancel(self) -> None:
        """Does nothing: the request is already answered."""


class AtOnce(EchoBackend):
    def submit(  # type: ignore[override]  # a ticket, where the fake gives a future
        self,
        payload: object,
        *,
        rows: int,
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        age_ns: int = 0,
        parameters: Mapping[str, object] | None = None,
    ) -> Answered:
        return Answered(Completed(payload, QUEUE_NS, TIMINGS))


class Sink:
    """A transport that counts the written bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def pause_reading(self) -> None:
        """Does nothing: the reads are prepared, and the connection keeps what it cannot read yet."""

    resume_reading = pause_reading

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise SystemExit("the connection was closed")


def reads(count: int, keys: Sequence[str] = ()) -> list[bytes]:
    """Returns the bytes of `count` calls, in reads. keys: API keys that they send in turn."""
    request = message("ModelInferRequest")(model_name="m", id="7")
    request.inputs.add(name="x", datatype="FP32", shape=ARRAY.shape)
    request.raw_input_contents.append(ARRAY.tobytes())
    content = request.SerializeToString()
    body = b"\0" + len(content).to_bytes(4, "big") + content
    encoder = Encoder()
    encoder.header_table_size = 0
    encoder.encode([])
    shown: list[list[tuple[str, str]]] = [[("authorization", f"Bearer {key}")] for key in keys] or [[]]
    heads = [encoder.encode([*HEADERS, *more]) for more in shown]

    def call(id: int) -> bytes:
        headers = http2.frame(http2.HEADERS, http2.END_HEADERS, id, heads[id // 2 % len(heads)])
        return headers + http2.frame(http2.DATA, http2.END_STREAM, id, body)

    ids = range(1, 2 * count, 2)
    return [b"".join(map(call, ids[at : at + TOGETHER])) for at in range(0, count, TOGETHER)]


def serving(gate: Gate | None = None, quota: Quota | None = None) -> GrpcService:
    """Returns the service of a model that answers at once."""
    described = (TensorDescription("x", "FP32", (-1, 1024)),)

    async def models() -> list[ModelEntry]:
        return []

    served = ServedModel(name="m", inputs=described, outputs=described, backend=AtOnce(), quota=quota)
    return GrpcService([served], Operations(models, gate=gate))


async def run(service: GrpcService, prepared: list[bytes], rounds: int) -> float:
    """Returns the microseconds per call of the fastest round. prepared: see `reads`."""
    count = TOGETHER * len(prepared)
    heads: dict[bytes, Head] = {}
    least_us = float("inf")
    for _ in range(rounds):
        connection = GrpcConnection(service, max_message_bytes=1 << 20, others={}, connections=set(), heads=heads)
        sink = Sink()
        connection.connection_made(sink)
        room = http2.window_update(0, http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW)
        hello = http2.settings([(http2.INITIAL_WINDOW_SIZE, http2.LARGEST_WINDOW)])
        connection.data_received(http2.PREFACE + hello + http2.frame(http2.SETTINGS, http2.ACK, 0) + room)
        began = time.process_time_ns()
        unread = iter(prepared)
        while sink.bytes < count * ARRAY.nbytes:  # after the last read only if the machine paused
            connection.data_received(next(unread, b""))
            await asyncio.sleep(0)
        least_us = min(least_us, (time.process_time_ns() - began) / count / 1000)
    return least_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_600)
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    took_us = asyncio.run(run(serving(), reads(arguments.calls // TOGETHER * TOGETHER), arguments.rounds))
    print(f"{took_us:.2f} µs per call")


if __name__ == "__main__":
    main()
