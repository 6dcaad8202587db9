"""Stories that tests tell, told without pytest: where there is a GPU there may be nothing else."""

import sys
import traceback
from collections.abc import Callable, Iterable


def tell(stories: Iterable[tuple[str, Callable[[], object]]]) -> int:
    """A line for each; 1 if one failed, for `sys.exit`."""
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
