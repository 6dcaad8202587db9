"""The history of a model: records in an object store, each of one event, with who, when and why.

Records are `models/<model>/log/<number>.json`; `serving/store/log.py` reads and adds them. Knows what every record
holds, and nothing of what one kind means: that is in `state.py`, and with those who write other kinds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from serving.store.log import BadRecord, Log
from serving.store.objects import BadPath, ObjectStore
from serving.traffic.routes import SHARES

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a model, as in the settings
MOST_RECORD_BYTES = 4 << 20  # the counts of a release take some 5 KiB for each replica
_HEAD = ("kind", "at", "by", "why", "nonce")


class Split(NamedTuple):
    """The versions that answer a model's unversioned path. share: the candidate's, in 1/10000 of the requests."""

    stable: str
    candidate: str | None = None
    share: int = 0

    def as_mapping(self) -> dict[str, Any]:
        return self._asdict()


@dataclass(frozen=True, slots=True)
class Record:
    """An event. at: RFC 3339, UTC. facts: all other fields. split: the traffic from here on; None: as it was."""

    kind: str
    at: str
    by: str
    why: str
    facts: Mapping[str, Any]
    split: Split | None = None

    def text(self, name: str) -> str:
        """Returns a fact that is a text, "" if it is none."""
        value = self.facts.get(name)
        return value if isinstance(value, str) else ""


Records = tuple[Record, ...]


class ModelLog(Log[Records]):
    """The records of a model, as far as they were read: `state`, the oldest first.

    `append` adds what `written` returns. Raises BadPath for a name that no model has."""

    def __init__(self, store: ObjectStore, model: str) -> None:
        if not NAME.fullmatch(model):
            raise BadPath(f"{model[:100]!r} is no name of a model; use letters, digits, '.', '_' and '-'")
        self.model = model
        super().__init__(store, f"models/{model}/log", (), folded, of="a model", most_bytes=MOST_RECORD_BYTES)

    @property
    def records(self) -> Records:
        return self.state


def last_split(records: Records) -> Split | None:
    """Returns the traffic as the records leave it, the oldest first; None if none has changed it."""
    return next((record.split for record in reversed(records) if record.split is not None), None)


async def models_of(store: ObjectStore) -> list[str]:
    """Returns the names of all models that have a record."""
    paths = await store.paths("models")
    return sorted({parts[1] for path in paths if len(parts := path.split("/")) == 4 and parts[2] == "log"})


def written(
    kind: str, *, now_s: int, by: str, why: str = "", nonce: str, split: Split | None = None, **facts: Any
) -> bytes:
    """Returns the record of an event. nonce: tells equal records of two writers apart."""
    told = {"kind": kind, "at": instant(now_s), "by": by, "why": why, **facts}
    route = {} if split is None else {"route": split.as_mapping()}
    return json.dumps(told | route | {"nonce": nonce}, separators=(",", ":"), ensure_ascii=False).encode()


def folded(records: Records, record: bytes) -> Records:
    """Returns the records with this one. Raises BadRecord."""
    return (*records, parsed(record))


def parsed(record: bytes) -> Record:
    """Returns what a record says. Raises BadRecord."""
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        raise BadRecord("is not JSON: it was cut off, or something else wrote it") from None
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("kind", "at", "by")):
        raise BadRecord("is no record of a model")
    why = value.get("why", "")
    split = _split(value["route"]) if value.get("route") is not None else None
    facts = {name: fact for name, fact in value.items() if name not in (*_HEAD, "route")}
    return Record(value["kind"], value["at"], value["by"], why if isinstance(why, str) else "", facts, split)


def instant(now_s: int) -> str:
    """Returns the second since 1970 as RFC 3339, in UTC."""
    return datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _split(value: object) -> Split:
    if not isinstance(value, dict):
        raise BadRecord("holds a route that is none")
    stable, candidate, share = value.get("stable"), value.get("candidate"), value.get("share", 0)
    if not isinstance(stable, str) or not (candidate is None or isinstance(candidate, str)):
        raise BadRecord("holds a route without a stable version")
    if not isinstance(share, int) or isinstance(share, bool) or not 0 <= share <= SHARES or (share and not candidate):
        raise BadRecord("holds a route with a share that is none")
    return Split(stable, candidate, share)
