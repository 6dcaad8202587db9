"""Logs a sample of the features that were served, for `headway features check`: values, reasons and the time.

One line of JSON for each entity of a sampled answer, as `features/offline/served.py` reads it. Files are written in a
thread and bounded in size. Ids of entities and values of features are in them: they lie with the history itself.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from serving.bounded_folder import BoundedLines
from serving.telemetry.deferred import Deferred

logger = logging.getLogger(__name__)
MOST_BYTES = 100 << 20  # of all files in the folder
MOST_WAITING = 10_000  # answers kept in memory for the next write


class Sampled(NamedTuple):
    """The answer for one entity: value and reason of each feature."""

    tenant: str
    view: str
    id: str
    at_ms: int
    names: Sequence[str]
    values: Sequence[Any]
    reasons: Sequence[Any]


class ServedLog:
    """The log of one process. folder: shared by all of a machine. share: of the look-ups that are logged, 0 to 1.

    random: returns numbers from 0 to 1."""

    def __init__(self, folder: Path, *, share: float, random: Callable[[], float]) -> None:
        self._file = BoundedLines(folder, f"{os.uname().nodename}_{os.getpid()}", MOST_BYTES, _warn)
        self._share = share
        self._random = random
        self._lines: Deferred[Sampled] = Deferred(self._write, most=MOST_WAITING)

    def note(
        self,
        tenant: str,
        view: str,
        names: Sequence[str],
        ids: Sequence[str],
        answers: Sequence[Any],
        at_ms: int,
    ) -> None:
        """Logs an answer, or passes it over. answers: per entity, with `values` and `reasons`. Call it
        on the event loop."""
        if self._random() < self._share:
            for id, of_entity in zip(ids, answers, strict=True):
                self._lines.put(Sampled(tenant, view, id, at_ms, names, of_entity.values, of_entity.reasons))

    def _write(self, sampled: list[Sampled]) -> None:
        self._file.append(json.dumps(_line(one), separators=(",", ":")) + "\n" for one in sampled)


def _warn(error: OSError) -> None:
    logger.warning("features: what is served is not logged: %s", error)


def _line(one: Sampled) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "view": one.view,
        "id": one.id,
        "at": one.at_ms,
        "values": dict(zip(one.names, one.values, strict=True)),
        "reasons": {name: str(reason) for name, reason in zip(one.names, one.reasons, strict=True)},
    }
