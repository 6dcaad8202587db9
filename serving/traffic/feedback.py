"""Joins the values that clients send back to the version that answered the request. Pure.

Any replica may receive a value, and any other may have answered. The front gathers the values, and asks all replicas
which of the requests they answered. A replica tells of a request once, so that a value sent twice counts once.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from serving.traffic.evidence import Reading

TRIES = 3  # collections in which a value waits for the replica that answered: one may be late
MOST = 20_000  # values that wait


class Feedback(NamedTuple):
    """A value from 0 to 1 for the answer to the request with this id, from the tenant that sent the request."""

    tenant: str
    id: str
    value: float


class Report(NamedTuple):
    """The answer of a replica to one collection.

    feedback: received from clients since the collection before. answered: the indices of those requests, of the ones
    it was asked for, that it has answered and has not told of before."""

    reading: Reading
    feedback: tuple[Feedback, ...] = ()
    answered: tuple[int, ...] = ()


class Desk:
    """The values of one release that wait to be joined."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], tuple[float, int]] = {}  # value and tries left

    def asked(self) -> list[tuple[str, str]]:
        """Returns the tenants and ids of the requests to ask all replicas for."""
        return list(self._waiting)

    def joined(self, asked: Sequence[tuple[str, str]], arms: Sequence[Sequence[Report]]) -> list[list[float]]:
        """Returns the values for each arm, and takes the new ones in.

        asked: as it was sent. arms: the reports of the replicas of each. A request that several replicas claim counts
        for none: the client has used its id more than once."""
        claims: dict[int, list[int]] = {}
        for arm, reports in enumerate(arms):
            for index in (index for report in reports for index in report.answered):
                claims.setdefault(index, []).append(arm)
        values: list[list[float]] = [[] for _ in arms]
        for index, key in enumerate(asked):
            value, left = self._waiting.pop(key)
            if len(claimed := claims.get(index, [])) == 1:
                values[claimed[0]].append(value)
            elif not claimed and left > 1:
                self._waiting[key] = value, left - 1
        self._take(one for reports in arms for report in reports for one in report.feedback)
        return values

    def _take(self, given: Iterable[Feedback]) -> None:
        for one in given:
            if len(self._waiting) < MOST:
                self._waiting.setdefault((one.tenant, one.id), (one.value, TRIES))
