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

from serving.bounded_folder import PARTS, make_room
from serving.telemetry.deferred import Deferred

logger = logging.getLogger(__name__)
MOST_BYTES = 100 << 20  # of all files in the folder
MOST_WAITING = 10_000  # answers kept in memory for the next write


class Sampled(NamedTuple):
    """The answer for one entity. answers: value and reason of each feature, among other fields."""

    tenant: str
    view: str
    id: str
    at_ms: int
    names: Sequence[str]
    answers: Sequence[Any]


class ServedLog:
    """The log of one process. folder: shared by all of a machine. share: of the look-ups that are logged, 0 to 1.

    random: returns numbers from 0 to 1."""

    def __init__(self, folder: Path, *, share: float, random: Callable[[], float]) -> None:
        self._folder = folder
        self._share = share
        self._random = random
        self._part = 0
        self._is_failing = False
        self._lines: Deferred[Sampled] = Deferred(self._write, most=MOST_WAITING)

    def note(
        self,
        tenant: str,
        view: str,
        names: Sequence[str],
        ids: Sequence[str],
        answers: Sequence[Sequence[Any]],
        at_ms: int,
    ) -> None:
        """Logs an answer, or passes it over. answers: per entity, for each feature, with `value` and `reason`. Call it
        on the event loop."""
        if self._random() < self._share:
            for id, of_entity in zip(ids, answers, strict=True):
                self._lines.put(Sampled(tenant, view, id, at_ms, names, of_entity))

    @property
    def path(self) -> Path:
        """The file that the next line is written to."""
        return self._folder / f"{os.uname().nodename}_{os.getpid()}_{self._part}.jsonl"

    def _write(self, sampled: list[Sampled]) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_room(self._folder, "*.jsonl", MOST_BYTES)
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(_line(one), separators=(",", ":")) + "\n" for one in sampled)
            if self.path.stat().st_size > MOST_BYTES // PARTS:
                self._part += 1
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                logger.warning("features: what is served is not logged: %s", error)
            self._is_failing = True


def _line(one: Sampled) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "view": one.view,
        "id": one.id,
        "at": one.at_ms,
        "values": {name: answer.value for name, answer in zip(one.names, one.answers, strict=True)},
        "reasons": {name: str(answer.reason) for name, answer in zip(one.names, one.answers, strict=True)},
    }
