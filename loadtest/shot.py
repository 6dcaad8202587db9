"""One measured request (a shot), and its file format: one JSON object per line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shot:
    """One measured request. Instants are nanoseconds since the start of the run; None for events that did not happen.

    status: the HTTP status, None without a complete answer.
    error: None for an answer below status 400; else the server's error, or the failure of the connection.
    deadline_ns: the latest useful answer, counted from the planned instant; None without a deadline."""

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
        """True for a complete answer with a status below 400."""
        return self.status is not None and self.status < 400

    def is_in_time(self, within_ns: int | None = None) -> bool:
        """Returns whether the shot was answered by its own deadline or, without one, within `within_ns` after the
        planned instant. Goodput counts these shots."""
        limit_ns = self.deadline_ns if self.deadline_ns is not None else within_ns
        took_ns = self.from_planned_ns
        return self.is_answered and took_ns is not None and (limit_ns is None or took_ns <= limit_ns)

    @property
    def from_planned_ns(self) -> int | None:
        """The latency from the planned instant, as a real client experiences it."""
        return None if self.done_ns is None else self.done_ns - self.planned_ns

    @property
    def from_sent_ns(self) -> int | None:
        """The latency from the instant of sending, which excludes lateness of the load generator."""
        return None if self.done_ns is None or self.sent_ns is None else self.done_ns - self.sent_ns

    @property
    def lateness_ns(self) -> int | None:
        """The delay of sending by the load generator; it limits the accuracy of the results."""
        return None if self.sent_ns is None else self.sent_ns - self.planned_ns


def write_shots(path: Path, shots: Iterable[Shot]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(shot), separators=(",", ":")) + "\n" for shot in shots)


def read_shots(path: Path) -> list[Shot]:
    with path.open(encoding="utf-8-sig") as file:
        return [Shot(**json.loads(line)) for line in file if line.strip()]
