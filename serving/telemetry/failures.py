"""Where a model's code raised: a traceback in the replica's log, once a minute for each kind of failure.

A kind is the type of what was raised and the line that raised it. However many requests fail, the log stays readable.
"""

import logging
import traceback

from serving.core.outcome import Failed
from serving.core.witness import Exchange

AGAIN_NS = 60_000_000_000
MOST_KINDS = 100
MOST_TEXT = 128  # characters of an id, which a client chose


class FailureLog:
    """A `core.witness.Witness`, to be told of requests that failed."""

    def __init__(self, logger: logging.Logger, *, model: str) -> None:
        self._logger = logger
        self._model = model
        self._told: dict[tuple[str, str, int], tuple[int, int]] = {}  # when last, and how many like it since

    def answered(self, exchange: Exchange) -> None:
        if not isinstance(exchange.outcome, Failed) or exchange.outcome.error.__cause__ is None:
            return
        error = exchange.outcome.error.__cause__
        kind = (type(error).__qualname__, *_place(error))
        told_ns, more = self._told.pop(kind, (None, 0))
        if told_ns is not None and exchange.ended_ns - told_ns < AGAIN_NS:
            self._told[kind] = (told_ns, more + 1)
            return
        self._told[kind] = (exchange.ended_ns, 0)
        if len(self._told) > MOST_KINDS:
            del self._told[next(iter(self._told))]  # the one that has not been seen for the longest
        called = exchange.id[:MOST_TEXT].encode("unicode_escape").decode("ascii")
        others = f", and {more} more like it" if more else ""
        self._logger.error("%s: request %s%s failed in the model's code", self._model, called, others, exc_info=error)


def _place(error: BaseException) -> tuple[str, int]:
    """The file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return (frames[0].filename, frames[0].lineno or 0) if frames else ("", 0)
