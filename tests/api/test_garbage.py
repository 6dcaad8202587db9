"""Tests that a large message is freed as soon as its request has failed, and not by the garbage collector."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from serving.api.beside import LONG_ELEMENTS
from serving.core.outcome import Completed, Outcome
from serving.testing.backend import QUEUE_NS, TIMINGS, EchoBackend
from tests.api.test_connection import BODY, Talk, infer

LARGE = 50_000  # bytes
MANY = np.ones((1, 2 * LONG_ELEMENTS), np.float64)
TOO_DEEP = b'{"inputs":' + b"[" * 90_000
TOO_MANY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[' + b"1," * 40_000 + b"1]}]}"
ASKS_FOR_JSON = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'


@contextmanager
def collected_garbage() -> Iterator[list[object]]:
    """Collects, at its end, what only the garbage collector frees of all that was made within it."""
    gc.collect()
    gc.disable()
    found: list[object] = []
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def is_large(thing: object) -> bool:
    return isinstance(thing, (bytes, bytearray, memoryview, np.ndarray)) and memoryview(thing).nbytes >= LARGE


@pytest.mark.parametrize(
    ("body", "outcome", "status"),
    [
        pytest.param(TOO_DEEP, None, 400, id="a body that is no message"),
        pytest.param(TOO_MANY, None, 400, id="a body that does not fit its shape"),
        pytest.param(ASKS_FOR_JSON, Completed({"x": MANY}, QUEUE_NS, TIMINGS), 500, id="an answer of a wrong datatype"),
    ],
)
def test_a_large_message_that_fails_is_not_kept_by_its_error(body: bytes, outcome: Outcome | None, status: int) -> None:
    async def story() -> tuple[int, list[object]]:
        backend = EchoBackend()
        talk = Talk(backend)
        await talk.send(infer())  # what is made once per process
        await talk.answers(1)
        backend.script = [outcome] if outcome is not None else []
        with collected_garbage() as garbage:
            await talk.send(infer(body, length=None))
            answers = await talk.answers(2)
        return answers[1][0], [one for one in garbage if is_large(one) or any(map(is_large, gc.get_referents(one)))]

    assert len(BODY) < LARGE
    assert asyncio.run(story()) == (status, [])
