"""A circuit breaker: after repeated failures it stops calling what fails, and then tries it with a single call."""

import enum
from collections.abc import Callable

MOST_FAILURES = 5
OPEN_NS = 30_000_000_000
JITTER = 0.1  # of the time that it stays open, so that replicas do not all probe at once


class State(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    PROBING = "probing"


class Breaker:
    """The breaker of one callee. More than `most_failures` failures in a row open it for `open_ns` by the clock.

    Whoever was allowed a call reports its end exactly once: `succeeded`, `failed`, or `ended` for one that says nothing
    of the callee, because the caller had made a mistake or gave up.

    random: returns numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self, random: Callable[[], float], *, most_failures: int = MOST_FAILURES, open_ns: int = OPEN_NS
    ) -> None:
        self.state = State.CLOSED
        self._random = random
        self._most_failures = most_failures
        self._open_ns = open_ns
        self._failures = 0
        self._until_ns = 0

    def allows(self, now_ns: int) -> bool:
        """Returns whether to call now. While open it is False, and after that True once: for the probe.

        A probe whose end is never reported is given up after the time that the breaker stays open.
        """
        if self.state is State.CLOSED:
            return True
        if now_ns < self._until_ns:
            return False
        self.state = State.PROBING
        self._until_ns = now_ns + self._open_ns
        return True

    def succeeded(self) -> None:
        """Records a success. While it is open, one of a call from before does not close it: only a probe does."""
        if self.state is not State.OPEN:
            self.state = State.CLOSED
            self._failures = 0

    def failed(self, now_ns: int) -> None:
        self._failures += 1
        if self.state is State.PROBING or (self.state is State.CLOSED and self._failures > self._most_failures):
            self.state = State.OPEN
            self._until_ns = now_ns + int(self._open_ns * (1 + JITTER * self._random()))

    def ended(self, now_ns: int) -> None:
        """Records an end that says nothing of the callee. If it was the probe, the next call is the probe."""
        if self.state is State.PROBING:
            self.state = State.OPEN
            self._until_ns = now_ns

    def wait_ns(self, now_ns: int) -> int:
        """Returns how long no call is allowed; 0 if one is."""
        return 0 if self.state is State.CLOSED else max(0, self._until_ns - now_ns)
