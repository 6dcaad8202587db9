"""Measures how long the event loop is blocked by one large request of each form. No sockets, no model.

    python -m benchmarks.bench_stalls [--mib N] [--only WORD] [--rounds N]

A task that is due every millisecond runs beside each request. Printed are the most CPU time that the process used
between two iterations of the task, and its total CPU time: the least of several rounds, since other work on the machine
only adds to it. Compare only with numbers of the same machine.
"""

import argparse
import asyncio
import gzip
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from serving.api.admission.gate import Peer
from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed
from serving.api.grpc.service import GrpcService
from serving.api.http.app import ModelApp
from serving.api.operations import Operations
from serving.api.served import ServedModel
from serving.protocol.messages import TensorDescription
from serving.protocol.pb import message
from serving.testing.backend import EchoBackend

SWITCH_INTERVAL_S = 1e-4  # of a replica
PART_BYTES = 1 << 18  # the size of the parts in which a server passes a body on
TINY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]'

Run = Callable[[ServedModel], Awaitable[None]]


class NoCall:
    def time_left_ns(self) -> int | None:
        return None

    def metadata(self, name: str) -> str:
        return ""

    @property
    def peer(self) -> Peer:
        return Peer(self.metadata)

    def request_id(self) -> str:
        return "7"


def over_http(body: bytes, head_bytes: int | None = None, coding: bytes = b"", verb: str = "infer") -> Run:
    async def run(served: ServedModel) -> None:
        parts = iter(range(0, len(body), PART_BYTES))

        async def receive() -> dict[str, object]:
            await asyncio.sleep(0)
            start = next(parts)
            more = start + PART_BYTES < len(body)
            return {"type": "http.request", "body": body[start : start + PART_BYTES], "more_body": more}

        async def send(_: object) -> None:
            pass

        headers = [(b"content-length", b"%d" % len(body))]
        if head_bytes is not None:
            headers.append((b"inference-header-content-length", b"%d" % head_bytes))
        if coding:
            headers.append((b"content-encoding", coding))
        scope = {"type": "http", "method": "POST", "path": f"/v2/models/m/{verb}", "headers": headers}
        await ModelApp(served)(scope, receive, send)

    return run


def over_generate(values: str) -> Run:
    """Builds a request whose answer has no elements, since answers of generate are written on the event loop."""
    run_http = over_http(f'{{"x":{values}}}'.encode(), verb="generate")

    async def run(served: ServedModel) -> None:
        without_elements = EchoBackend(lambda values: {"x": values["x"][:, :0]})
        await run_http(replace(served, backend=without_elements))

    return run


def over_grpc(request: Any) -> Run:
    encoded = request.SerializeToString()

    async def no_models() -> list[ModelEntry]:
        return []

    async def run(served: ServedModel) -> None:
        service = GrpcService([served], Operations(no_models))
        with suppress(CallFailed):
            await service.infer(encoded, NoCall())

    return run


def as_json(datatype: str, count: int, data: str) -> Run:
    x = f'{{"name":"x","datatype":"{datatype}","shape":[1,{count}],"data":{data}}}'
    return over_http(f'{{"inputs":[{x}]}}'.encode())


def raw(datatype: str, count: int, data: bytes, coding: str = "") -> Run:
    x = f'{{"name":"x","datatype":"{datatype}","shape":[1,{count}],"parameters":{{"binary_data_size":{len(data)}}}}}'
    head = f'{{"inputs":[{x}],"parameters":{{"binary_data_output":true}}}}'.encode()
    body = head + data
    return over_http(gzip.compress(body) if coding else body, len(head), coding.encode())


def grpc_request(*inputs: dict[str, Any], **more: Any) -> Any:
    return message("ModelInferRequest")(model_name="m", inputs=inputs, **more)


def contents(datatype: str, count: int, **values: Any) -> Any:
    return grpc_request({"name": "x", "datatype": datatype, "shape": [1, count], "contents": values})


def forms(size: int) -> dict[str, tuple[str, Callable[[], Run]]]:
    """Returns by form: the datatype of the model's only input and output, and a function that builds the request."""
    tiny = {"name": "x", "datatype": "FP32", "shape": [1, 1]}
    many = b",".join([b'{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}'] * (size // 57))
    outputs = b",".join([b'{"name":"x"}'] * (size // 13))
    eighth = size // 8

    def numbers(each: str, last: str) -> Callable[[], Run]:
        return lambda: as_json("FP32", eighth, "[" + each * (eighth - 1) + last + "]")

    def typed(datatype: str, value_bytes: int, field: str, value: object) -> Callable[[], Run]:
        count = size // value_bytes
        return lambda: over_grpc(contents(datatype, count, **{field: [value] * count}))

    def raw_grpc() -> Run:
        return over_grpc(grpc_request(tiny | {"shape": [1, size // 4]}, raw_input_contents=[bytes(size)]))

    return {
        "http raw FP32": ("FP32", lambda: raw("FP32", size // 4, bytes(size))),
        "http raw FP32, gzip": ("FP32", lambda: raw("FP32", size // 4, bytes(size), "gzip")),
        "http raw BYTES": ("BYTES", lambda: raw("BYTES", eighth, b"\4\0\0\0text" * eighth)),
        "http JSON numbers": ("FP32", numbers("0.1234,", "1")),
        "http JSON nested": ("FP32", numbers("[0.12],", "[1]")),
        "http JSON with a NaN": ("FP32", numbers("0.1234,", "NaN")),
        "http JSON texts": ("BYTES", lambda: as_json("BYTES", eighth, json.dumps(["text"] * eighth))),
        "http JSON one text": ("BYTES", lambda: as_json("BYTES", 1, json.dumps(["word " * (size // 5)]))),
        "http JSON tiny inputs": ("FP32", lambda: over_http(b'{"inputs":[' + many + b"]}")),
        "http JSON many outputs": ("FP32", lambda: over_http(TINY + b',"outputs":[' + outputs + b"]}")),
        "http classes of all": ("FP32", lambda: over_http(_classes(size // 16))),
        "generate numbers": ("FP32", lambda: over_generate("[" + "0.1234," * (size // 7) + "1]")),
        "generate nested": ("FP32", lambda: over_generate("[" + "[0.12]," * (size // 7) + "[1]]")),
        "generate with a NaN": ("FP32", lambda: over_generate("[" + "0.1234," * (size // 7) + "NaN]")),
        "generate texts": ("BYTES", lambda: over_generate(json.dumps(["text"] * eighth))),
        "generate one text": ("BYTES", lambda: over_generate(json.dumps("a" * size))),
        "generate parameters": ("FP32", lambda: over_generate("1" + ',"abcd":1' * (size // 9))),
        "grpc raw FP32": ("FP32", raw_grpc),
        "grpc FP32 contents": ("FP32", typed("FP32", 4, "fp32_contents", 1.5)),
        "grpc INT64 contents": ("INT64", typed("INT64", 2, "int64_contents", 300)),
        "grpc BYTES contents": ("BYTES", typed("BYTES", 6, "bytes_contents", b"text")),
        "grpc tiny inputs": ("FP32", lambda: over_grpc(grpc_request(*[tiny] * (size // 16)))),
        "grpc many outputs": ("FP32", lambda: over_grpc(grpc_request(tiny, outputs=[{"name": "x"}] * (size // 5)))),
    }


def _classes(count: int) -> bytes:
    data = "[" + "1," * (count - 1) + "1]"
    x = f'{{"name":"x","datatype":"FP32","shape":[1,{count}],"data":{data}}}'
    return f'{{"inputs":[{x}],"outputs":[{{"name":"x","parameters":{{"classification":{count}}}}}]}}'.encode()


async def measure(run: Run, datatype: str) -> tuple[float, float]:
    """Returns the longest stall and the time of the whole request, in seconds of CPU."""
    tensors = (TensorDescription("x", datatype, (-1, -1)),)
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            begun = time.process_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - begun)

    served = ServedModel(
        name="m", inputs=tensors, outputs=tensors, backend=EchoBackend(lambda values: values), max_body_bytes=1 << 30
    )
    beating = asyncio.get_running_loop().create_task(beat())
    await asyncio.sleep(0.01)
    begun = time.process_time()
    await run(served)
    took = time.process_time() - begun
    await asyncio.sleep(0.01)
    beating.cancel()
    return longest, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=64, help="size of each request")
    parser.add_argument("--only", default="", help="forms with this in their name")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    print(f"{f'{arguments.mib} MiB':26s} {'longest stall':>14s} {'whole request':>14s}")
    for name, (datatype, make) in forms(arguments.mib << 20).items():
        if arguments.only in name:
            run = make()
            rounds = [asyncio.run(measure(run, datatype)) for _ in range(arguments.rounds)]
            stall, took = (min(times) for times in zip(*rounds, strict=True))
            print(f"{name:26s} {stall * 1000:11.0f} ms {took * 1000:11.0f} ms", flush=True)


if __name__ == "__main__":
    main()
