"""One measured request, and how many of them are kept on disk: one JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shot:
    """Instants are nanoseconds since the start of the run; None for what did not happen.

    status: the HTTP status, None where no whole answer came.
    error: None for an answer below status 400; else what the server said, or what went wrong on the way.
    deadline_ns: how long after the planned instant the answer is worth something; None for ever."""

    planned_ns: int
    sent_ns: int | None = None
    first_byte_ns: int | None = None
    done_ns: int | None = None
    status: int | None = None
    error: str | None = None
    task: str = ""
    tenant: str = ""
    rows: int = 1
    deadline_ns: int | None = None

    @property
    def is_answered(self) -> bool:
        """A whole answer with a status below 400."""
        return self.status is not None and self.status < 400

    def is_in_time(self, within_ns: int | None = None) -> bool:
        """Answered before its own deadline, or else `within_ns` after the planned instant: what goodput counts."""
        limit_ns = self.deadline_ns if self.deadline_ns is not None else within_ns
        took_ns = self.from_planned_ns
        return self.is_answered and took_ns is not None and (limit_ns is None or took_ns <= limit_ns)

    @property
    def from_planned_ns(self) -> int | None:
        """What a client feels that came when it wanted to."""
        return None if self.done_ns is None else self.done_ns - self.planned_ns

    @property
    def from_sent_ns(self) -> int | None:
        """What the server is to blame for, once the request has left us."""
        return None if self.done_ns is None or self.sent_ns is None else self.done_ns - self.sent_ns

    @property
    def lateness_ns(self) -> int | None:
        """How late we were ourselves: the load generator's own fault, and the measure of its honesty."""
        return None if self.sent_ns is None else self.sent_ns - self.planned_ns


def write_shots(path: Path, shots: Iterable[Shot]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(shot), separators=(",", ":")) + "\n" for shot in shots)


def read_shots(path: Path) -> list[Shot]:
    with path.open(encoding="utf-8-sig") as file:
        return [Shot(**json.loads(line)) for line in file if line.strip()]
