"""The replicas' logs, which are JSON for programs, read for people: merged by time, one line each.

What a client chose (an id, a tenant) stands in them as it came. For people it is made harmless: a terminal obeys escape
sequences, and a line break in an id would begin a line that nobody wrote. Programs get the lines unchanged.
"""

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/tmp/ray/session_latest/logs/serve")  # where Ray keeps them on every machine
_WORDS = "replica_*.log"


@dataclass(frozen=True, slots=True)
class Line:
    """at: as it is written in the file; who: the model, or the front, and its replica."""

    at: str
    level: str
    who: str
    text: str
    raw: str


class LogFiles:
    """What was added to the logs in `folder` since it was asked last; replicas may come and go meanwhile."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._read_bytes: dict[Path, int] = {}

    def new_lines(self) -> list[Line]:
        lines = [line for path in sorted(self._folder.glob(_WORDS)) for line in self._new_lines(path)]
        return sorted(lines, key=lambda line: line.at)

    def _new_lines(self, path: Path) -> list[Line]:
        with path.open("rb") as file:
            begin = self._read_bytes.get(path, 0)
            if begin > path.stat().st_size:
                begin = 0  # another file took its place
            file.seek(begin)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]  # the last line may not be complete yet
        self._read_bytes[path] = begin + len(whole)
        who = path.stem.removeprefix("replica_")
        return [readable(raw, who) for raw in whole.decode(errors="replace").split("\n") if raw]


def readable(raw: str, who: str) -> Line:
    """A line that is no JSON is shown as it is."""
    try:
        told = json.loads(raw)
        traceback = [f"  {harmless(line)}" for line in str(told.get("exc_text") or "").split("\n") if line]
        text = "\n".join([harmless(str(told["message"])), *traceback])
        by = f"{told.get('deployment', who).removesuffix('_ModelReplica')} {told.get('replica', '')}".strip()
        return Line(harmless(str(told["asctime"])), str(told["levelname"]), harmless(by), text, raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Line("", "", harmless(who), harmless(raw), raw)


def harmless(text: str) -> str:
    """With everything escaped that a terminal does not show as it is: control characters, line breaks, changes of the
    writing direction."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )
