"""Limits the frames of a connection that cost the client nothing and advance no call: PING, SETTINGS, RST_STREAM, empty
DATA and the like. A flood of them ends the connection. Pure."""

from collections.abc import Callable

from serving.protocol.http2 import ENHANCE_YOUR_CALM, ConnectionFault

# A token bucket: its size in frames, and the refill per second. Each call that is not cancelled refills one frame more,
# since HAProxy sends the frames of many clients on one connection.
IDLE_FRAMES = 10_000
IDLE_FRAMES_PER_S = 1_000


class Allowance:
    """The allowance of one connection. clock: returns seconds. broken_off: number of calls that the client reset."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.broken_off = 0
        self._clock = clock
        self._left = IDLE_FRAMES
        self._counted_s = clock()
        self._counted_calls = 0

    def spend(self, frames: int, calls: int) -> None:
        """Counts frames that advance no call. calls: number of calls begun so far on this connection. Raises
        ConnectionFault (ENHANCE_YOUR_CALM) when the allowance is used up."""
        self._left -= frames
        if self._left < 0:
            now_s, calls = self._clock(), calls - self.broken_off
            refill = int((now_s - self._counted_s) * IDLE_FRAMES_PER_S) + calls - self._counted_calls
            self._counted_s, self._counted_calls = now_s, calls
            self._left = min(IDLE_FRAMES, self._left + refill)
            if self._left < 0:
                raise ConnectionFault(ENHANCE_YOUR_CALM, "too many frames that advance no call")
