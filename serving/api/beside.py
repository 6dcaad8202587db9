"""Reads and writes large messages in threads, so that they do not block the event loop.

Small messages are read and written on the loop, where that is cheapest; the constants say what is small. The work that
waits for a thread is bounded by `admission/room.py`, which counts every body that is held.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LONG_BYTES = 1 << 16  # of a message; reading a larger one may take a millisecond or more
LONG_ANSWER_BYTES = 1 << 22  # of outputs that are copied as they are
LONG_ELEMENTS = 1 << 13  # of outputs that are written one by one: as JSON, as BYTES, as classes
# More threads would only compete with the event loop for the interpreter's lock.
_threads = ThreadPoolExecutor(2, thread_name_prefix="messages")


def beside(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Queues the work for a thread and returns its future at once. Must be called on the event loop."""
    return asyncio.get_running_loop().run_in_executor(_threads, work)
