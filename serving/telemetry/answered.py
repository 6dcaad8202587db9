"""Remembers the ids of the latest answered requests, so that a value for an answer can be joined to it later."""

from collections.abc import Sequence

from serving.core.outcome import Completed
from serving.core.witness import Exchange

GENERATION = 32_768


class AnsweredIds:
    """A `core.witness.Witness` that keeps tenant and id of requests that were computed, at least the latest GENERATION.

    Two generations, as in `api.recall`: keeping an id costs no more than an entry in a dictionary."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._young: dict[tuple[str, str], None] = {}
        self._old: dict[tuple[str, str], None] = {}

    def answered(self, exchange: Exchange) -> None:
        outcome = exchange.outcome
        if type(outcome) is not Completed or outcome.cached or exchange.status >= 400:
            return
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[exchange.tenant, exchange.id] = None

    def take(self, asked: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Returns the indices of those that are known, and forgets these, so that each is told of once."""
        return tuple(index for index, key in enumerate(asked) if self._forget(key))

    def _forget(self, key: tuple[str, str]) -> bool:
        known = key in self._young or key in self._old
        self._young.pop(key, None)
        self._old.pop(key, None)
        return known
