"""Polling for conditions that become true after an unknown time: soon on a fast machine, late on a busy one."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(
    look: Callable[[], Found],
    is_right: Callable[[Found], object] = bool,
    patience_s: float = 60.0,
    *,
    every_s: float = 0.1,
    beside: Callable[[], object] = lambda: "",
) -> Found:
    """Calls `look` every `every_s` seconds and returns its first result that `is_right` accepts.

    Fails after `patience_s` seconds, with the last result and that of `beside` in the message.
    """
    give_up_s = time.monotonic() + patience_s
    while not is_right(found := look()):
        assert time.monotonic() < give_up_s, f"not right after {patience_s:g} s: {found} {beside()}"
        time.sleep(every_s)
    return found
