"""Long work on messages, done in threads beside the event loop: reading and writing large ones.

Short work stays on the loop, where it is cheapest; the bounds say what is short. What waits here is bounded by `room`:
every body that is held, waiting or not, counts there.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LONG_BYTES = 1 << 16  # of a message, from where on reading it may take a millisecond or more
LONG_ANSWER_BYTES = 1 << 22  # of outputs that are copied as they are
LONG_ELEMENTS = 1 << 13  # of outputs that are written one by one: as JSON, as BYTES, as classes
# More would only share the interpreter's lock with the event loop more often.
_threads = ThreadPoolExecutor(2, thread_name_prefix="messages")


def beside(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Does the work in its turn; returns at once. Must be called on the event loop."""
    return asyncio.get_running_loop().run_in_executor(_threads, work)
