"""A runner for tests without pytest, which a machine with a GPU may lack."""

import sys
import traceback
from collections.abc import Callable, Iterable


def tell(stories: Iterable[tuple[str, Callable[[], object]]]) -> int:
    """Runs each test and prints a line for it. Returns 1 if one failed, otherwise 0, for `sys.exit`."""
    failed = 0
    for name, story in stories:
        try:
            story()
        except Exception:
            failed = 1
            sys.stdout.write(f"FAILED {name}\n{traceback.format_exc()}\n")
        else:
            sys.stdout.write(f"passed {name}\n")
    return failed
