"""The evidence that the candidate's requests fail more often than those of the stable version at the same time.

Pure. Requests are put into groups of one moment. Within a group, if both versions fail equally often, each failure is
the candidate's with the chance `w`, its share of the group's requests. The evidence is the likelihood ratio of odds
that are `ODDS` times as high, averaged over these; so failure rates that change with time, and shares that are not what
was set, do no harm. For every group the ratio's mean is at most one: the candidate's failures are hypergeometric, whose
moments are below those of the binomial (Hoeffding 1963, theorem 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any, Self

ODDS = tuple(2 ** (step / 3) for step in range(1, 19))  # 1.26 to 64
GROUP = 20  # requests; of fewer, one version often has none, which says nothing


@dataclass(frozen=True, slots=True)
class Odds:
    """The failures of both versions so far. logs: the logarithm of the likelihood ratio, for each of ODDS.

    candidate, stable: requests of the group that is being filled; failed: the candidate's, then all failures in it."""

    logs: tuple[float, ...] = (0.0,) * len(ODDS)
    candidate: int = 0
    stable: int = 0
    failed: tuple[int, int] = (0, 0)

    def after(self, candidate: tuple[int, int], stable: tuple[int, int]) -> "Odds":
        """Returns the odds after further requests of one moment. candidate, stable: (failures, requests).

        When a group ends depends on numbers of requests only, never on failures."""
        own, others = self.candidate + candidate[1], self.stable + stable[1]
        failed = self.failed[0] + candidate[0], self.failed[1] + candidate[0] + stable[0]
        if not own or not others or own + others < GROUP:
            return Odds(self.logs, own, others, failed)
        share = own / (own + others)
        logs = (
            each + failed[0] * log(odds) - failed[1] * log(1 - share + share * odds)
            for each, odds in zip(self.logs, ODDS, strict=True)
        )
        return Odds(tuple(logs))

    def log_e(self) -> float:
        """Returns the logarithm of the evidence, the mean of all likelihood ratios."""
        largest = max(self.logs)
        return largest + log(sum(exp(each - largest) for each in self.logs) / len(self.logs))

    def as_json(self) -> list[Any]:
        return [list(self.logs), self.candidate, self.stable, list(self.failed)]

    @classmethod
    def of_json(cls, document: Sequence[Any]) -> Self:
        logs, candidate, stable, failed = document
        return cls(tuple(logs), candidate, stable, (failed[0], failed[1]))
