"""A server with known service times: it answers each request after a seeded random delay, and records the time from the
last byte of the request to the first byte of the answer. Run by `python -m benchmarks.loadtest`.

`GET /taken` returns the times recorded so far, in nanoseconds, and clears them."""

import argparse
import asyncio
import json
import random
from time import perf_counter_ns

from loadtest import precise

_METADATA = json.dumps({"name": "m", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]}).encode()


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Scripted(asyncio.Protocol):
    """One connection. All connections share the random delays."""

    def __init__(self, delays: random.Random, median_s: float, sigma: float, taken: list[int]) -> None:
        self._delays, self._median_s, self._sigma, self._taken = delays, median_s, sigma, taken
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        came_ns = perf_counter_ns()
        self._data += data
        head, separator, rest = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self._data = b""
        if head.startswith(b"GET /taken"):
            self._transport.write(answer(json.dumps(self._taken).encode()))
            self._taken.clear()
        elif head.startswith(b"GET"):
            self._transport.write(answer(_METADATA))
        elif not self._median_s:
            self._reply(came_ns)
        else:
            delay_s = self._median_s * self._delays.lognormvariate(0, self._sigma)
            asyncio.get_running_loop().call_later(delay_s, self._reply, came_ns)

    def _reply(self, came_ns: int) -> None:
        self._taken.append(perf_counter_ns() - came_ns)
        self._transport.write(answer(b"ok"))


async def serve(port: int, median_s: float, sigma: float) -> None:
    delays = random.Random(7)
    taken: list[int] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Scripted(delays, median_s, sigma, taken), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--median-ms", type=float, default=20.0, help="0: at once")
    parser.add_argument("--sigma", type=float, default=0.5)
    arguments = parser.parse_args()
    precise.run(serve(arguments.port, arguments.median_ms / 1e3, arguments.sigma))
