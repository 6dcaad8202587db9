"""The clocks. Only this module reads the time; all other code of the core receives `now_ns` as an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock."""

    def now_ns(self) -> int:
        """Returns nanoseconds of a monotonic clock. Its zero is arbitrary: only differences are meaningful."""
        ...


class SystemClock:
    """The monotonic clock of the operating system."""

    now_ns = staticmethod(time.monotonic_ns)


class Calendar:
    """The time of day in nanoseconds since 1970. All processes of a machine share it, but it can be set and so jump."""

    now_ns = staticmethod(time.time_ns)
