"""For what comes to pass in its own time, sooner on a fast machine and later on a busy one."""

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
    """What `look` finds, as soon as that is right. beside: what else to show where it never is."""
    give_up_s = time.monotonic() + patience_s
    while not is_right(found := look()):
        assert time.monotonic() < give_up_s, f"not right after {patience_s:g} s: {found} {beside()}"
        time.sleep(every_s)
    return found
