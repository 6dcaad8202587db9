"""How many frames may come on a connection that cost the client nothing and bring no call forward. Pure."""

from collections.abc import Callable

from serving.protocol.http2 import ENHANCE_YOUR_CALM, ConnectionFault

# Such frames at a time; more may come with each second and with each call that is not broken off. HAProxy sends many
# clients' frames on one connection.
IDLE_FRAMES = 10_000
IDLE_FRAMES_PER_S = 1_000


class Allowance:
    """Of one connection. clock: seconds. broken_off: how many calls their client gave up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.broken_off = 0
        self._clock = clock
        self._left = IDLE_FRAMES
        self._counted_s = clock()
        self._counted_calls = 0

    def spend(self, frames: int, calls: int) -> None:
        """Counts such frames. calls: how many were begun so far. Raises ConnectionFault when there
        have been too many."""
        self._left -= frames
        if self._left < 0:
            now_s, calls = self._clock(), calls - self.broken_off
            more = int((now_s - self._counted_s) * IDLE_FRAMES_PER_S) + calls - self._counted_calls
            self._counted_s, self._counted_calls = now_s, calls
            self._left = min(IDLE_FRAMES, self._left + more)
            if self._left < 0:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames that bring no call forward")
