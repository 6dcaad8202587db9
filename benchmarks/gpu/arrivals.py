"""A process of its own that says how many requests are due by now, as often as that changes.

Clients live elsewhere: one that shared the interpreter with the engine would take it away whenever it woke, and what is
measured would be that. Reads the instants (64-bit nanoseconds after the start) from its input; writes the start by the
clock that all processes share, then counts. Standard library only, so that it is there in a moment.
"""

import os
import sys
import time
from array import array
from bisect import bisect_right

NUMBER = 8  # bytes
FIRST_NS = 2_000_000
TICK_S = 0.0001  # whoever listens is woken no more often than that


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
