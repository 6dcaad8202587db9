"""Reads the JSON logs of the replicas and formats them for people: merged by time, one line per record.

The logs hold text that clients chose (ids, tenants). A terminal would obey escape sequences in it, and a line break in
an id would forge a log line. So this text is escaped for people; programs get the lines unchanged.
"""

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/tmp/ray/session_latest/logs/serve")  # where Ray keeps them on every machine
_WORDS = "replica_*.log"


@dataclass(frozen=True, slots=True)
class Line:
    """A record of a log. at: its time as written in the file. who: the model (or the front) and the replica."""

    at: str
    level: str
    who: str
    text: str
    raw: str


class LogFiles:
    """A reader of the logs in `folder` that remembers how far it has read each file. Files may appear and disappear."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}

    def new_lines(self) -> list[Line]:
        """Returns the complete lines added to all files since the last call, in order of time."""
        lines = [line for path in sorted(self._folder.glob(_WORDS)) for line in self._new_lines(path)]
        return sorted(lines, key=lambda line: line.at)

    def _new_lines(self, path: Path) -> list[Line]:
        with path.open("rb") as file:
            begin = self._read_bytes.get(path, 0)
            if begin > path.stat().st_size:
                begin = 0  # the file was replaced by a new one
            file.seek(begin)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]  # the last line may not be complete yet
        self._read_bytes[path] = begin + len(whole)
        who = path.stem.removeprefix("replica_")
        return [readable(raw, who) for raw in whole.decode(errors="replace").split("\n") if raw]


def readable(raw: str, who: str) -> Line:
    """Parses a line of a log. A line that is not JSON becomes the text unchanged, except for escaping."""
    try:
        record = json.loads(raw)
        traceback = [f"  {harmless(line)}" for line in str(record.get("exc_text") or "").split("\n") if line]
        text = "\n".join([harmless(str(record["message"])), *traceback])
        source = f"{record.get('deployment', who).removesuffix('_ModelReplica')} {record.get('replica', '')}".strip()
        return Line(harmless(str(record["asctime"])), str(record["levelname"]), harmless(source), text, raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Line("", "", harmless(who), harmless(raw), raw)


def harmless(text: str) -> str:
    """Escapes all characters that a terminal does not show as they are: control characters, line breaks and changes of
    the writing direction."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )
