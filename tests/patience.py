"""For what comes to pass in its own time, sooner on a fast machine and later on a busy one."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def eventually(look: Callable[[], Found], is_right: Callable[[Found], object], patience_s: float = 60.0) -> Found:
    """What `look` finds, as soon as that is right."""
    give_up_s = time.monotonic() + patience_s
    while not is_right(found := look()):
        assert time.monotonic() < give_up_s, f"not right after {patience_s:g} s: {found}"
        time.sleep(0.1)
    return found
