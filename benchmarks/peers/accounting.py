"""Who used the processor: reads /proc before and after a load and says which process spent how much.

Counts user and system time of whole processes, so it holds on a noisy machine where a throughput does not.
Parsing and arithmetic are pure; only `processes` and `busy_seconds` touch /proc."""

import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    pid: int
    parent: int
    group: int
    session: int
    started_ticks: int  # with the pid it names one process for ever: pids are handed out again
    cpu_s: float
    label: str

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started_ticks


def parse_process(stat: str, command_line: str) -> Process:
    """One process from the text of its /proc files."""
    # The name in brackets may itself hold spaces and brackets; only the last bracket ends it.
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    return Process(
        pid=int(stat.split(maxsplit=1)[0]),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started_ticks=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND,
        label=label(command_line) or name,
    )


def label(command_line: str) -> str:
    """A short name a reader recognises: the script or module rather than the interpreter that runs it."""
    words = command_line.replace("\0", " ").split()
    if not words:
        return ""
    program = os.path.basename(words[0])
    if words[0].startswith("ray::"):
        return words[0].split(".")[0]  # the method after the dot is only what it runs at this moment
    if not program.startswith("python"):
        return program
    for position, word in enumerate(words[1:], start=1):
        if word == "-m" and position + 1 < len(words):
            return words[position + 1]
        if word == "-c":
            return "python -c" + (" (multiprocessing)" if "multiprocessing" in command_line else "")
        if not word.startswith("-"):
            return os.path.basename(word)
    return program


def processes() -> dict[int, Process]:
    """Every process of this machine at this moment, by pid; those that ended but were not collected are left out."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat, command_line = (folder / "stat").read_text(), (folder / "cmdline").read_text(errors="replace")
            except OSError:
                continue  # it ended while we were reading
            if stat.rpartition(")")[2].split(maxsplit=1)[0] != "Z":
                process = parse_process(stat, command_line)
                found[process.pid] = process
    return found


def family(table: Mapping[int, Process], root: int, known: Set[tuple[int, int]] = frozenset()) -> dict[int, Process]:
    """The root, all it started and all they started, also those whose parent is gone.

    A session outlives its leader, so a root started in a session of its own keeps its orphans; `known` adds
    processes seen in the family before."""
    members = {
        pid: process
        for pid, process in table.items()
        if pid == root or process.session == root or process.identity in known
    }
    while added := {pid: process for pid, process in table.items() if pid not in members and process.parent in members}:
        members.update(added)
    return members


def spent(before: Mapping[int, Process], after: Mapping[int, Process]) -> dict[str, float]:
    """CPU seconds by label between two readings; a process that began in between counts from its birth."""
    by_label: dict[str, float] = {}
    for pid, process in after.items():
        earlier = before.get(pid)
        start = earlier.cpu_s if earlier is not None and earlier.identity == process.identity else 0.0
        by_label[process.label] = by_label.get(process.label, 0.0) + process.cpu_s - start
    return {name: seconds for name, seconds in by_label.items() if seconds > 0}


def parse_busy_seconds(stat: str) -> float:
    """CPU seconds this machine has worked since it was booted, of all processes (text of /proc/stat)."""
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, stat.split("\n", 1)[0].split()[1:8])
    return (user + nice + system + interrupts + soft_interrupts) / TICKS_PER_SECOND


def busy_seconds() -> float:
    return parse_busy_seconds(Path("/proc/stat").read_text())
