"""Closed-loop clients of one model of the cluster, over HTTP or gRPC."""

import asyncio
from collections import Counter
from types import ModuleType

import numpy as np
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.cluster.conftest import GRPC_PORT, PORT

HTTP: ModuleType = tritonclient.http.aio
GRPC: ModuleType = tritonclient.grpc.aio


def address(wire: ModuleType) -> str:
    return f"127.0.0.1:{PORT if wire is HTTP else GRPC_PORT}"


def inputs(wire: ModuleType = HTTP, value: float = 1.0) -> list[object]:
    """One row for the models of `conftest`."""
    x = wire.InferInput("x", [1, 1024], "FP32")
    x.set_data_from_numpy(np.full((1, 1024), value, np.float32))
    return [x]


class Traffic:
    """Runs closed-loop clients while its context is open, and counts how every request ended.

    pause_s: the time between an answer and the client's next request.
    """

    def __init__(self, model: str, clients: int, pause_s: float = 0.0, *, wire: ModuleType = HTTP) -> None:
        self._model = model
        self._clients = clients
        self._pause_s = pause_s
        self._wire = wire
        self.outcomes: Counter[str] = Counter()
        self._stopping = False

    async def __aenter__(self) -> "Traffic":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until_answered(self, count: int) -> None:
        """Returns when `count` more requests have been answered without an error."""
        goal = self.outcomes["ok"] + count
        while self.outcomes["ok"] < goal:
            await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        async with self._wire.InferenceServerClient(address(self._wire)) as client:
            while not self._stopping:
                self.outcomes[await asked_once(client, self._model, self._wire)] += 1
                if self._pause_s:
                    await asyncio.sleep(self._pause_s)


async def asked_once(client: object, model: str, wire: ModuleType) -> str:
    """Sends one request. Returns "ok", or the error as text."""
    try:
        await client.infer(model, inputs(wire))  # type: ignore[attr-defined]
    except InferenceServerException as error:
        return f"{error.status()} {error.message()[:80]}"
    except OSError as error:
        return f"connection: {type(error).__name__}"
    return "ok"
