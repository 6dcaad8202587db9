"""Well-behaved clients, in a process of their own: each asks a small question of its model all the while, with Triton's
client, and compares the answer with the right one."""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Callable
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
GIVE_UP_S = 60.0


@dataclass(slots=True)
class Seen:
    """Of one kind: how many answers were right, what the others were, and the longest wait."""

    right: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


class Bystanders:
    """Use it in a `with`. Between `begin` and `end` they ask."""

    def __init__(self, doors: Doors) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_ask_all, args=(doors, theirs), daemon=True)

    def __enter__(self) -> "Bystanders":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._line.send("leave")
        self._process.join(GIVE_UP_S)
        self._process.kill()

    def begin(self) -> None:
        self._line.send("begin")

    def end(self) -> Seen:
        """When the last questions are answered."""
        self._line.send("end")
        seen: Seen = self._line.recv()
        return seen


def questions() -> list[tuple[str, str, str, np.ndarray, np.ndarray]]:
    """Model, input, its datatype, its value, and the right answer."""
    numbers = np.array([[1.5, -2.0, 3.25]], np.float32)
    file = BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 60)).save(file, "PNG")
    texts = np.array([[b"The train leaves at noon."]], dtype=object)
    return [
        ("numbers", "x", "FP32", numbers, numbers),
        ("texts", "text", "BYTES", texts, np.array([[8]], np.int32)),
        ("pictures", "image", "BYTES", np.array([[file.getvalue()]], object), np.array([[90, 120, 60]], np.float32)),
    ]


def _ask_all(doors: Doors, line: Connection) -> None:
    asyncio.run(_obey(doors, line))


async def _obey(doors: Doors, line: Connection) -> None:
    while (await asyncio.to_thread(line.recv)) == "begin":
        seen, over = Seen(), asyncio.Event()
        clients = [
            asyncio.create_task(_ask(wire, address, question, seen, over))
            for wire, (host, port) in ((over_http, doors.http), (over_grpc, doors.grpc))
            for address in (f"{host}:{port}",)
            for question in questions()
        ]
        await asyncio.to_thread(line.recv)
        over.set()
        await asyncio.gather(*clients)
        line.send(seen)


async def _ask(
    wire: Any, address: str, question: tuple[str, str, str, np.ndarray, np.ndarray], seen: Seen, over: asyncio.Event
) -> None:
    model, name, datatype, value, right = question
    clock: Callable[[], float] = asyncio.get_running_loop().time
    async with wire.InferenceServerClient(address) as client:
        while not over.is_set():
            began_s = clock()
            tensor = wire.InferInput(name, list(value.shape), datatype)
            tensor.set_data_from_numpy(value)
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    answer = await client.infer(model, [tensor])
                output = (
                    answer.get_response()["outputs"][0]["name"]
                    if wire is over_http
                    else answer.get_response().outputs[0].name
                )
                is_right = np.array_equal(answer.as_numpy(output), right)
                what = "" if is_right else f"{answer.as_numpy(output)!r} instead of {right!r}"
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
            seen.slowest_s = max(seen.slowest_s, clock() - began_s)
            if what:
                seen.wrong[f"{model} over {wire.__name__.split('.')[1]}: {what[:200]}"] += 1
            else:
                seen.right += 1
            await asyncio.sleep(PAUSE_S)
