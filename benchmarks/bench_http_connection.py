"""Microseconds of CPU per HTTP request in the fast path alone: bytes in, a backend that answers at once, bytes out.

    python -m benchmarks.bench_http_connection [--requests N] [--rounds R]

No sockets, no engine, 4 KB per request. Prints the fastest of the rounds: other work on the machine only adds to a
round. Compare only with numbers of the same machine, interleaved: run it alternately in two checkouts.
"""

import argparse
import asyncio
import json
import time

import uvicorn
from uvicorn.server import ServerState

from benchmarks.bench_grpc_connection import ARRAY, AtOnce, Sink
from serving.api.admission.gate import Gate
from serving.api.admission.quota import Quota
from serving.api.http.app import ModelApp
from serving.api.http.connection import InferConnection, fast_path
from serving.api.served import ServedModel
from serving.protocol.messages import TensorDescription


class Socketless(Sink):
    """A transport as an HTTP connection sees it, with no socket behind it."""

    def get_extra_info(self, name: str) -> None:
        return None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Does nothing: the protocol stays."""


def request(key: str = "") -> bytes:
    """Returns the bytes of a request as tritonclient sends it through HAProxy, without the stamp of its age.

    key: an API key to send, "" for none."""
    tensor = {"name": "x", "shape": ARRAY.shape, "datatype": "FP32", "parameters": {"binary_data_size": ARRAY.nbytes}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    lines = (
        "POST /v2/models/m/infer HTTP/1.1",
        "host: 127.0.0.1:8000",
        "accept: */*",
        *([f"authorization: Bearer {key}"] if key else []),
        f"inference-header-content-length: {len(head)}",
        f"content-length: {len(head) + ARRAY.nbytes}",
    )
    return "\r\n".join((*lines, "", "")).encode() + head + ARRAY.tobytes()


def connected(
    loop: asyncio.AbstractEventLoop, gate: Gate | None = None, quota: Quota | None = None
) -> tuple[InferConnection, Sink]:
    """Returns a connection to a model that answers at once, and where its answers go."""
    described = (TensorDescription("x", "FP32", (-1, ARRAY.shape[1])),)
    app = ModelApp(ServedModel(name="m", inputs=described, outputs=described, backend=AtOnce(), quota=quota), gate=gate)
    config = uvicorn.Config(app, ws="none", log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"uvicorn")]
    connection = fast_path(app)(config=config, server_state=state, app_state={}, _loop=loop)
    sink = Socketless()
    connection.connection_made(sink)  # type: ignore[arg-type]
    return connection, sink


async def run(count: int, rounds: int) -> float:
    """Returns the microseconds per request of the fastest round."""
    connection, sink = connected(asyncio.get_running_loop())
    data = request()
    least_ns = 1 << 62
    for _ in range(rounds):
        began = time.process_time_ns()
        for _ in range(count):
            connection.data_received(data)
        least_ns = min(least_ns, time.process_time_ns() - began)
        await asyncio.sleep(0)
    assert sink.bytes > count * rounds * ARRAY.nbytes
    return least_ns / count / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    print(f"{asyncio.run(run(arguments.requests, arguments.rounds)):.2f} µs per request")


if __name__ == "__main__":
    main()
