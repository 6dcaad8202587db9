"""A clock for tests that only advances on request."""


class ManualClock:
    """A `core.clock.Clock` whose time changes only by `advance`."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance(self, ns: int) -> None:
        self._now_ns += ns
