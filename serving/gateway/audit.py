"""The record of who changed what, and who was refused: lines of JSON, only ever appended, in a folder of bounded size.

Each process of a server writes files of its own, so that none is written by two. Reading merges those of all. Texts
that clients chose are cut, and whatever looks like a key or a token in them is removed before it is written.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from heapq import nlargest
from pathlib import Path

from serving.bounded_folder import PARTS, make_room
from serving.gateway.key_text import scrubbed
from serving.store.objects import scheme_of

logger = logging.getLogger(__name__)
_FILES = "audit_{}_{}.jsonl"  # with the process that writes it, and a number
MOST_TEXT = 200  # characters of one value
_BLOCK = 64 << 10


def audit_folder(state: str) -> Path | None:
    """Returns the folder of the audit; None if the state is in a bucket, whose objects cannot be appended to."""
    scheme, rest = scheme_of(state)
    return Path(rest) / "audit" if scheme == "file" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that a caller did or was refused.

    at_s: seconds since 1970. address: "" for a command on a machine, `unknown` if the load balancer does not tell it.
    """

    at_s: float
    tenant: str
    key_id: str
    action: str
    object: str
    result: str
    address: str = ""


class AuditLog:
    """The audit in this folder. writer: the process, in the names of its files."""

    def __init__(self, folder: Path, writer: str, *, most_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._writer = writer
        self._most_bytes = most_bytes
        self._part = 0
        self._is_failing = False

    @property
    def path(self) -> Path:
        """The file that was written last."""
        return self._folder / _FILES.format(self._writer, self._part)

    def write(self, entries: Iterable[Entry]) -> None:
        """Appends these entries. Blocks: call it in a thread. A failure is logged, once until it works again."""
        text = "".join(f"{line_of(entry)}\n" for entry in entries)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            make_room(self._folder, _FILES.format("*", "*"), self._most_bytes)
            while self.path.is_file() and self.path.stat().st_size > self._most_bytes // PARTS:
                self._part += 1
            with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
                file.write(text)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                logger.error("the audit cannot be written: %s", error)
            self._is_failing = True

    def last(self, count: int) -> list[Entry]:
        """Returns the newest entries of all processes, the newest first. Lines that cannot be read are left out."""
        entries = (entry for path in self._folder.glob(_FILES.format("*", "*")) for entry in _newest(path, count))
        return nlargest(count, entries, key=lambda entry: entry.at_s)


def refused_folder(audit: Path) -> Path:
    """Returns the folder of refusals beside the changes: however many there are, they do not push changes out."""
    return audit / "refused"


def latest(audit: Path, count: int) -> list[Entry]:
    """Returns the newest changes and refusals, the newest first."""
    entries = [entry for folder in (audit, refused_folder(audit)) for entry in AuditLog(folder, "").last(count)]
    return nlargest(count, entries, key=lambda entry: entry.at_s)


def line_of(entry: Entry) -> str:
    """Returns the entry as JSON on one line, in ASCII, without anything that looks like a key."""
    values = {name: _clean(value) if isinstance(value, str) else value for name, value in asdict(entry).items()}
    return json.dumps(values | {"at_s": round(entry.at_s, 3)}, separators=(",", ":"))


def entry_of(line: bytes) -> Entry | None:
    """Returns the entry of a line, None if it is none: cut off, say, when its process was killed."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Entry)}:
        return None
    at_s = value.pop("at_s")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float):
        return None
    return Entry(at_s=at_s, **value) if all(isinstance(text, str) for text in value.values()) else None


def _clean(text: str) -> str:
    text = scrubbed(text[: 2 * MOST_TEXT])
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def _newest(path: Path, count: int) -> list[Entry]:
    """Returns the last entries of a file; none if another process has deleted it."""
    found: list[Entry] = []
    try:
        for line in _lines_from_end(path):
            if len(found) >= count:
                break
            if (entry := entry_of(line)) is not None:
                found.append(entry)
    except FileNotFoundError:
        return []
    return found


def _lines_from_end(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        at, rest = file.seek(0, os.SEEK_END), b""
        while at > 0:
            size = min(_BLOCK, at)
            at = file.seek(at - size)
            first, *lines = (file.read(size) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line)
            rest = first
        if rest:
            yield rest
