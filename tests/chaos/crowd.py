"""Clients that speak plain HTTP over sockets of their own, or gRPC, and note how every request ended and how soon."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

HOST = "127.0.0.1"
PORT = 18451
GRPC_PORT = 18453
OK = "ok"


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of one request.

    what: "ok"; the status and the error of an answer that says what is wrong; "unclear ..." for one that does not; or
    "connection ..." if there was no answer."""

    what: str
    seconds: float
    retry_after: bool = False

    @property
    def is_clear(self) -> bool:
        return not self.what.startswith(("unclear", "connection"))


def body(value: float) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [value] * 4}
    return json.dumps({"inputs": [tensor]}).encode()


def message(path: str, content: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


async def ask(model: str, value: float = 1.0, *, content: bytes | None = None, give_up_s: float = 30.0) -> Reply:
    """One infer request on a connection of its own."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    raw = b""
    try:
        async with asyncio.timeout(give_up_s):
            reader, writer = await asyncio.open_connection(HOST, PORT)
            try:
                writer.write(message(f"/v2/models/{model}/infer", body(value) if content is None else content))
                raw = await reader.read()
            finally:
                writer.close()
    except TimeoutError:
        return Reply(f"unclear: no answer within {give_up_s:g} s", clock() - began_s)
    except OSError as error:
        return Reply(f"connection: {type(error).__name__}", clock() - began_s)
    return _reply(raw, clock() - began_s)


def _reply(raw: bytes, seconds: float) -> Reply:
    head, _, content = raw.partition(b"\r\n\r\n")
    if not head:
        return Reply("connection: closed without an answer", seconds)
    status = int(head.split(b" ", 2)[1])
    if status == 200:
        return Reply(OK, seconds)
    retry_after = b"\r\nretry-after:" in head.lower()
    try:
        return Reply(f"{status} {json.loads(content)['error'][:70]}", seconds, retry_after)
    except (ValueError, KeyError, TypeError):
        return Reply(f"unclear {status}: {content[:70]!r}", seconds, retry_after)


class Crowd:
    """Clients that ask one model, one request after the other with a pause, until they are told to stop."""

    def __init__(self, model: str, clients: int = 8, pause_s: float = 0.01) -> None:
        self._model = model
        self.clients = clients
        self._pause_s = pause_s
        self._stopping = False
        self.replies: list[Reply] = []

    async def __aenter__(self) -> "Crowd":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self.clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        while not self._stopping:
            self.replies.append(await self._reply())
            await asyncio.sleep(self._pause_s)

    async def _reply(self) -> Reply:
        return await ask(self._model)

    def counts(self) -> Counter[str]:
        return Counter(reply.what for reply in self.replies)

    async def until_well(self, count: int = 50, patience_s: float = 60.0) -> None:
        """Returns when so many in a row have been answered well."""
        start = len(self.replies)
        async with asyncio.timeout(patience_s):
            while True:
                fresh = self.replies[start:]
                if len(fresh) >= count and all(reply.what == OK for reply in fresh[-count:]):
                    return
                await asyncio.sleep(0.05)

    def slowest_s(self) -> float:
        return max(reply.seconds for reply in self.replies)

    def p95_s(self, last: int = 200) -> float:
        seconds = sorted(reply.seconds for reply in self.replies[-last:] if reply.what == OK)
        return seconds[int(0.95 * (len(seconds) - 1))]


class CrowdOverGrpc(Crowd):
    """A crowd that uses Triton's gRPC client, all on one connection. `what` is the name of gRPC's status."""

    async def __aenter__(self) -> "CrowdOverGrpc":
        self._client = tritonclient.grpc.aio.InferenceServerClient(f"{HOST}:{GRPC_PORT}")
        await super().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await super().__aexit__()
        await self._client.close()

    async def _reply(self) -> Reply:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        x = tritonclient.grpc.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.ones((1, 4), np.float32))
        try:
            await self._client.infer(self._model, [x])
        except InferenceServerException as error:
            return Reply(str(error.status()).removeprefix("StatusCode."), clock() - began_s)
        return Reply(OK, clock() - began_s)
