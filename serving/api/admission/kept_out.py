"""Counts the requests that HAProxy has refused in place of this replica, from a header of HAProxy's health checks.

The header names the HAProxy process, its number of refusals for this model since it started, and the number of replicas
among which they are divided (`cluster/haproxy/intake.py`).
"""

HEADER = b"x-headway-kept-out"
MOST_PROCESSES = 64  # remembered; HAProxy is started anew at every change of replicas


class KeptOut:
    """The refusals of all HAProxy processes in front of one replica."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._owed = 0.0  # of a request

    def heard(self, value: bytes) -> int:
        """Returns how many refusals this replica has to count for a header's value.

        The first value of a process is where counting begins: it may hold refusals of an earlier replica. A value in
        another form counts for nothing."""
        process, *numbers = value.split(b" ")
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            return 0
        total, replicas = map(int, numbers)
        before = self._known.pop(process, total)
        if len(self._known) >= MOST_PROCESSES:
            del self._known[next(iter(self._known))]
        self._known[process] = total
        self._owed += max(0, total - before) / max(1, replicas)
        count = int(self._owed)
        self._owed -= count
        return count
