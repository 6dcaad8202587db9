"""Bounds on the number of requests: a pace with a burst, and a daily total.

The pace is the generic cell rate algorithm (GCRA, ITU-T I.371). Its whole state is one instant, `clear_ns`: when all
that was taken will have been earned again. Before it, the difference to now is what is owed; after it, nothing is.
"""

from dataclasses import dataclass

MINUTE_NS = 60_000_000_000
DAY_NS = 24 * 60 * MINUTE_NS


@dataclass(frozen=True, slots=True)
class Pace:
    """One token per `interval_ns`, and at most `burst` at once: in any minute, that many more than the limit."""

    interval_ns: int
    burst: int

    def __post_init__(self) -> None:
        assert self.interval_ns > 0, self
        assert self.burst > 0, self

    @classmethod
    def per_minute(cls, tokens: int, burst: int) -> "Pace":
        """Returns the pace of a limit per minute; rounded so that it is never above the limit."""
        return cls(-(-MINUTE_NS // tokens), burst)

    def level(self, clear_ns: int, now_ns: int) -> int:
        """Returns the tokens that may be taken now; negative if more were taken than there were."""
        return (self.burst * self.interval_ns - max(clear_ns - now_ns, 0)) // self.interval_ns

    def wait_ns(self, clear_ns: int, now_ns: int, tokens: int = 1) -> int:
        """Returns how long it takes until there are so many tokens; 0 if there are. Never 0 for more than the burst."""
        return max(0, max(0, clear_ns - now_ns) - (self.burst - tokens) * self.interval_ns)

    def take(self, clear_ns: int, now_ns: int, tokens: int = 1) -> int:
        """Returns the new `clear_ns` after taking tokens, even too many; negative ones are given back."""
        return max(clear_ns, now_ns) + tokens * self.interval_ns

    def step(self, clear_ns: int, now_ns: int, tokens: int = 1) -> tuple[int, int]:
        """Takes tokens if there are so many. Returns the new `clear_ns`, and 0 or how long to wait until there are."""
        wait_ns = self.wait_ns(clear_ns, now_ns, tokens)
        return (clear_ns, wait_ns) if wait_ns else (self.take(clear_ns, now_ns, tokens), 0)


class DailyTotal:
    """A number of requests per day. `ends_ns`: when the first day ends, by the clock of `now_ns`."""

    __slots__ = ("_left", "ends_ns", "per_day")

    def __init__(self, per_day: int, ends_ns: int) -> None:
        self.per_day = per_day
        self.ends_ns = ends_ns
        self._left = per_day

    def left(self, now_ns: int) -> int:
        """Returns how many more there may be today."""
        if now_ns >= self.ends_ns:
            self.ends_ns += ((now_ns - self.ends_ns) // DAY_NS + 1) * DAY_NS
            self._left = self.per_day
        return self._left

    def limit(self, left: int) -> None:
        """Sets how many more there may be today."""
        self._left = left

    def count(self) -> None:
        self._left -= 1
