"""The clocks. Only this module reads the time; all other code of the core receives `now_ns` as an argument."""

import time
from pathlib import Path
from typing import Protocol

SCHEDULING = Path("/proc/thread-self/schedstat")  # ns on a core, ns waited for one, turns


class Clock(Protocol):
    """A monotonic clock."""

    def now_ns(self) -> int:
        """Returns nanoseconds of a monotonic clock. Its zero is arbitrary: only differences are meaningful."""
        ...


class SystemClock:
    """The monotonic clock of the operating system."""

    now_ns = staticmethod(time.monotonic_ns)


class RunningClock:
    """The monotonic clock without the time for which the calling thread was ready to run and had no core.

    For measurements beside other work. Only differences within one thread are meaningful. Where the system does not
    tell that time, as outside of Linux, this is the monotonic clock.
    """

    def __init__(self, scheduling: Path = SCHEDULING) -> None:
        self._scheduling = scheduling

    def now_ns(self) -> int:
        waited_ns = self._waited_ns()
        while True:
            now_ns, before_ns, waited_ns = time.monotonic_ns(), waited_ns, self._waited_ns()
            if waited_ns == before_ns:  # else the thread waited between the readings, which would not be of one instant
                return now_ns - waited_ns

    def _waited_ns(self) -> int:
        try:
            return int(self._scheduling.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0


class Calendar:
    """The time of day in nanoseconds since 1970. All processes of a machine share it, but it can be set and so jump."""

    now_ns = staticmethod(time.time_ns)
