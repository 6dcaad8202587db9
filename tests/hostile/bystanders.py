"""Well-behaved clients in a process of their own. Each sends a small request to its model or to the server again and
again, with Triton's client, and compares the answer with the right one."""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import tritonclient.grpc.aio as over_grpc
import tritonclient.http.aio as over_http
from PIL import Image

from tests.hostile.inputs import Doors

PAUSE_S = 0.02
GIVE_UP_S = 10.0
LEAVE_S = 30.0
Question = Callable[[Any, Any], Awaitable[str]]  # sends a request by a client of a wire; returns the fault, or ""


@dataclass(slots=True)
class Seen:
    """The results of all bystanders during one kind: the number of right answers by client, the other answers, and the
    longest wait in seconds."""

    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


class Bystanders:
    """Starts the clients' process. Use it in a `with`; the clients send requests between `begin` and `end`."""

    def __init__(self, doors: Doors) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_ask_all, args=(doors, theirs), daemon=True)

    def __enter__(self) -> "Bystanders":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.send("leave")
        self._process.join(LEAVE_S)
        self._process.kill()

    def begin(self) -> None:
        self._line.send("begin")

    def end(self) -> Seen:
        """Waits until the last requests are answered and returns the results."""
        self._line.send("end")
        seen: Seen = self._line.recv()
        return seen


def questions() -> dict[str, Question]:
    """Returns the requests of the bystanders, by name."""
    numbers = np.array([[1.5, -2.0, 3.25]], np.float32)
    file = BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 60)).save(file, "PNG")
    texts = np.array([[b"The train leaves at noon."]], dtype=object)
    picture = np.array([[file.getvalue()]], object)
    return {
        "numbers": _infer("numbers", "x", "FP32", numbers, numbers),
        "texts": _infer("texts", "text", "BYTES", texts, np.array([[8]], np.int32)),
        "pictures": _infer("pictures", "image", "BYTES", picture, np.array([[90, 120, 60]], np.float32)),
        "the server": _is_ready,
    }


def clients() -> set[str]:
    """Returns the names of all clients."""
    return {f"{name} over {wire}" for name in questions() for wire in ("http", "grpc")}


def _infer(model: str, name: str, datatype: str, value: np.ndarray, right: np.ndarray) -> Question:
    async def ask(wire: Any, client: Any) -> str:
        tensor = wire.InferInput(name, list(value.shape), datatype)
        tensor.set_data_from_numpy(value)
        answer = await client.infer(model, [tensor])
        response = answer.get_response()
        output = response["outputs"][0]["name"] if wire is over_http else response.outputs[0].name
        found = answer.as_numpy(output)
        return "" if np.array_equal(found, right) else f"{found!r} instead of {right!r}"

    return ask


async def _is_ready(wire: Any, client: Any) -> str:
    return "" if await client.is_server_ready() else "not ready"


def _ask_all(doors: Doors, line: Connection) -> None:
    asyncio.run(_obey(doors, line))


async def _obey(doors: Doors, line: Connection) -> None:
    while (await asyncio.to_thread(line.recv)) == "begin":
        seen, over = Seen(), asyncio.Event()
        asking = [
            asyncio.create_task(_ask(wire, f"{host}:{port}", f"{name} over {way}", question, seen, over))
            for way, wire, (host, port) in (("http", over_http, doors.http), ("grpc", over_grpc, doors.grpc))
            for name, question in questions().items()
        ]
        await asyncio.to_thread(line.recv)
        over.set()
        await asyncio.gather(*asking)
        line.send(seen)


async def _ask(wire: Any, address: str, name: str, question: Question, seen: Seen, over: asyncio.Event) -> None:
    clock: Callable[[], float] = asyncio.get_running_loop().time
    async with wire.InferenceServerClient(address) as client:
        while not over.is_set():
            began_s = clock()
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    what = await question(wire, client)
            except TimeoutError:
                what = f"no answer within {GIVE_UP_S:g} s"
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
            seen.slowest_s = max(seen.slowest_s, clock() - began_s)
            if what:
                seen.wrong[f"{name}: {what[:200]}"] += 1
            else:
                seen.right[name] += 1
            await asyncio.sleep(PAUSE_S)
