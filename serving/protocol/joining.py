"""Long messages put together out of parts, little by little: one copy of everything would hold the interpreter's lock
until it is done, in whatever thread it runs.
"""

from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np

COPIED_BYTES = 1 << 17  # in one call that holds the interpreter's lock
AT_ONCE_ELEMENTS = 1 << 20  # of outputs that are put together in one call, of a millisecond or a few


def joined(parts: Iterable[Any]) -> bytes:
    """What `b"".join` gives. parts: bytes, and arrays that lie in memory in their order; each is let go of as soon as
    it is copied."""
    message = BytesIO()
    for part in parts:
        append(message, part)
    return message.getvalue()  # without a copy


def append(message: BytesIO, part: Any) -> None:
    """The part at the end of the message."""
    if memoryview(part).nbytes <= COPIED_BYTES:
        message.write(part)
        return
    flat: Any = np.frombuffer(part, np.uint8)
    for start in range(0, len(flat), COPIED_BYTES):
        message.write(flat[start : start + COPIED_BYTES])
