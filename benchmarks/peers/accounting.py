"""Accounts CPU time by process: reads /proc before and after a load.

It counts user and system time of whole processes, which other work on the machine affects less than throughput.
Parsing and arithmetic are pure; only `processes` and `busy_seconds` read /proc."""

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
    started_ticks: int  # identifies the process together with the pid, because pids are reused
    cpu_s: float
    label: str

    @property
    def identity(self) -> tuple[int, int]:
        return self.pid, self.started_ticks


def parse_process(stat: str, command_line: str) -> Process:
    """Parses one process from the text of its /proc files."""
    # The name in brackets may contain spaces and brackets; the last bracket ends it.
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
    """Returns a short name of a process: the script or module instead of its interpreter."""
    words = command_line.replace("\0", " ").split()
    if not words:
        return ""
    program = os.path.basename(words[0])
    if words[0].startswith("ray::"):
        return words[0].split(".")[0]  # after the dot is the method that runs at the moment
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
    """Returns all processes of this machine, by pid, without zombies."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat, command_line = (folder / "stat").read_text(), (folder / "cmdline").read_text(errors="replace")
            except OSError:
                continue  # it ended during reading
            if stat.rpartition(")")[2].split(maxsplit=1)[0] != "Z":
                process = parse_process(stat, command_line)
                found[process.pid] = process
    return found


def family(table: Mapping[int, Process], root: int, known: Set[tuple[int, int]] = frozenset()) -> dict[int, Process]:
    """Returns the root and all its descendants, including those whose parent has ended.

    A session outlives its leader, so orphans of a root with its own session are found by their session; `known` adds
    processes that were in the family before."""
    members = {
        pid: process
        for pid, process in table.items()
        if pid == root or process.session == root or process.identity in known
    }
    while added := {pid: process for pid, process in table.items() if pid not in members and process.parent in members}:
        members.update(added)
    return members


def spent(before: Mapping[int, Process], after: Mapping[int, Process]) -> dict[str, float]:
    """Returns CPU seconds by label between two readings; a process that started in between counts from its start."""
    by_label: dict[str, float] = {}
    for pid, process in after.items():
        earlier = before.get(pid)
        start = earlier.cpu_s if earlier is not None and earlier.identity == process.identity else 0.0
        by_label[process.label] = by_label.get(process.label, 0.0) + process.cpu_s - start
    return {name: seconds for name, seconds in by_label.items() if seconds > 0}


def parse_busy_seconds(stat: str) -> float:
    """Returns the CPU seconds of all processes since this machine was booted, from the text of /proc/stat."""
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = map(int, stat.split("\n", 1)[0].split()[1:8])
    return (user + nice + system + interrupts + soft_interrupts) / TICKS_PER_SECOND


def busy_seconds() -> float:
    return parse_busy_seconds(Path("/proc/stat").read_text())
