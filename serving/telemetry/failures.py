"""Logs the traceback of failures in a model's code, once a minute for each kind of failure.

A kind is the type of the exception and the line that raised it. So the log stays readable if many requests fail.
"""

import logging
import traceback

from serving.core.outcome import Failed
from serving.core.witness import Exchange

AGAIN_NS = 60_000_000_000
MOST_KINDS = 100
MOST_TEXT = 128  # characters of a request id, which the client chooses


class FailureLog:
    """A `core.witness.Witness` that logs requests that failed in the model's code."""

    def __init__(self, logger: logging.Logger, *, model: str) -> None:
        self._logger = logger
        self._model = model
        self._logged: dict[tuple[str, str, int], tuple[int, int]] = {}  # by kind: last instant, and the number since

    def answered(self, exchange: Exchange) -> None:
        if not isinstance(exchange.outcome, Failed) or exchange.outcome.error.__cause__ is None:
            return
        error = exchange.outcome.error.__cause__
        kind = (type(error).__qualname__, *_place(error))
        logged_ns, skipped = self._logged.pop(kind, (None, 0))
        if logged_ns is not None and exchange.ended_ns - logged_ns < AGAIN_NS:
            self._logged[kind] = (logged_ns, skipped + 1)
            return
        self._logged[kind] = (exchange.ended_ns, 0)
        if len(self._logged) > MOST_KINDS:
            del self._logged[next(iter(self._logged))]  # the kind that has not occurred for the longest time
        id = exchange.id[:MOST_TEXT].encode("unicode_escape").decode("ascii")
        others = f", and {skipped} more like it" if skipped else ""
        self._logger.error("%s: request %s%s failed in the model's code", self._model, id, others, exc_info=error)


def _place(error: BaseException) -> tuple[str, int]:
    """Returns the file and the line that raised the exception; ("", 0) without a traceback."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return (frames[0].filename, frames[0].lineno or 0) if frames else ("", 0)
