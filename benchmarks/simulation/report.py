"""Formats tables and verdicts as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """A target of a measured value. wanted: a lower bound, or an upper bound if `at_most`."""

    what: str
    wanted: float
    measured: float
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted


@dataclass(slots=True)
class Section:
    """One section of the report: a text, a table, and targets."""

    title: str
    text: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append([f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells])

    def target(self, what: str, wanted: float, measured: float, *, at_most: bool = False) -> None:
        self.targets.append(Target(what, wanted, measured, at_most))


def render(sections: Sequence[Section]) -> str:
    return "\n\n".join([_verdicts(sections), *map(_section, sections)]) + "\n"


def _verdicts(sections: Sequence[Section]) -> str:
    targets = [target for section in sections for target in section.targets]
    missed = [target for target in targets if not target.is_met]
    rows = [
        [
            target.what,
            f"{'at most' if target.at_most else 'at least'} {target.wanted:g}",
            f"{target.measured:.3f}",
            "met" if target.is_met else "**missed**",
        ]
        for target in targets
    ]
    names = "; ".join(f"{target.what} ({target.measured:.3f})" for target in missed)
    summary = f"{len(targets) - len(missed)} of {len(targets)} targets met. Missed: {names or 'none'}."
    return f"## Targets\n\n{summary}\n\n{_table(['target', 'wanted', 'measured', ''], rows)}"


def _section(section: Section) -> str:
    return f"## {section.title}\n\n{section.text}\n\n{_table(section.columns, section.rows)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
