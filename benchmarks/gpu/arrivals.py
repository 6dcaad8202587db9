"""A separate process that writes how many requests are due, each time that the number changes.

Arrivals run in another process, because a client in the engine's process would take the interpreter lock whenever it
woke. Reads the instants (64-bit nanoseconds after the start) from its input; writes the start time on the clock that
all processes share, then the numbers. Uses only the standard library, so that it starts quickly.
"""

import os
import sys
import time
from array import array
from bisect import bisect_right

NUMBER = 8  # bytes
FIRST_NS = 2_000_000
TICK_S = 0.0001  # the shortest interval between two writes


def main() -> None:
    instants = array("q")
    instants.frombytes(sys.stdin.buffer.read())
    began_ns = time.perf_counter_ns() + FIRST_NS
    _say(began_ns)
    due = 0
    while due < len(instants):
        time.sleep(max(TICK_S, (instants[due] + began_ns - time.perf_counter_ns()) / 1e9))
        now_due = bisect_right(instants, time.perf_counter_ns() - began_ns, due)
        if now_due > due:
            due = now_due
            _say(due)


def _say(number: int) -> None:
    os.write(sys.stdout.fileno(), number.to_bytes(NUMBER, "little"))


if __name__ == "__main__":
    main()
