"""The only place that asks what time it is. Everything else is told: `now_ns` is an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Nanoseconds on a clock that never runs backwards; its zero means nothing."""
        ...


class SystemClock:
    now_ns = staticmethod(time.monotonic_ns)


class Calendar:
    """Nanoseconds since 1970: what other processes of this machine see too, but it may be set."""

    now_ns = staticmethod(time.time_ns)
