"""Microseconds of Headway's code per request: decode, validate, submit to a fake backend, encode. No sockets.

    python -m benchmarks.bench_http_codec [--requests N]

The request is tritonclient's: 4 KB of FP32 as binary data. Compare only with numbers of the same run and machine.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import numpy as np

from serving.api.http.app import ModelApp
from serving.api.served import ServedModel
from serving.core.outcome import Completed, Outcome
from serving.core.statistics import ModelStatistics
from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest, TensorDescription
from serving.testing.backend import QUEUE_NS, TIMINGS

ROUNDS = 5
ARRAY = np.arange(1024, dtype=np.float32).reshape(1, 1024)
TENSORS = (TensorDescription("x", "FP32", (-1, 1024)),)


class InstantBackend:
    """Answers at once, through a future as the engine does: what remains is the protocol's own cost."""

    def submit(self, payload: object, **_: object) -> Awaitable[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.set_result(Completed(payload, QUEUE_NS, TIMINGS))
        return future

    def statistics(self) -> ModelStatistics:
        return ModelStatistics()

    def is_ready(self) -> bool:
        return True


def requests() -> dict[str, Callable[[int], tuple[bytes, int | None]]]:
    def binary(index: int, *, id: str = "", binary: bool = True) -> tuple[bytes, int | None]:
        parameters = {"binary_data_output": binary}
        return encode_request(InferRequest((InferInput("x", "FP32", ARRAY, binary),), id=id, parameters=parameters))

    same = binary(0)
    return {
        "binary, same head": lambda index: same,
        "binary, new id each time": lambda index: binary(index, id=str(index)),
        "JSON both ways": lambda index: binary(index, binary=False),
    }


async def measure(app: ModelApp, bodies: list[tuple[bytes, int | None]]) -> float:
    event: dict[str, object] = {}

    async def receive() -> dict[str, object]:
        return event

    async def send(message: object) -> None:
        pass

    scopes = []
    for body, length in bodies:
        headers = [(b"host", b"localhost"), (b"user-agent", b"x"), (b"content-length", b"%d" % len(body))]
        if length is not None:
            headers.append((b"inference-header-content-length", b"%d" % length))
        scopes.append({"type": "http", "method": "POST", "path": "/v2/models/m/infer", "headers": headers})
    begin = time.perf_counter_ns()
    for scope, (body, _) in zip(scopes, bodies, strict=True):
        event = {"type": "http.request", "body": body, "more_body": False}
        await app(scope, receive, send)
    return (time.perf_counter_ns() - begin) / len(bodies) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    count = parser.parse_args().requests
    print(f"{'4 KB of FP32':28s} {'best':>8s} {'worst':>8s}   µs per request, {ROUNDS} rounds of {count}")
    for name, make in requests().items():
        rounds = count if "JSON" not in name else max(1, count // 20)
        bodies = [make(index) for index in range(rounds)]
        for timings in (True, False):
            app = ModelApp(
                ServedModel(name="m", backend=cast(Any, InstantBackend()), inputs=TENSORS, outputs=TENSORS),
                timings=timings,
            )
            took = [asyncio.run(measure(app, bodies)) for _ in range(ROUNDS)]
            label = name if timings else f"{name}, untimed"
            print(f"{label:36s} {min(took):8.2f} {max(took):8.2f}")


if __name__ == "__main__":
    main()
