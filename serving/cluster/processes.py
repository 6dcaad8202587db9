"""The processes this one has started, and their end: HAProxy and Ray's helpers outlive a plain shutdown."""

import os
import signal
import time
from pathlib import Path

POLL_S = 0.05


def descendants(root: int) -> set[int]:
    """All processes below `root`, by the parents that /proc names."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it ended while we looked
                continue
            parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def end(pids: set[int], patience_s: float) -> set[int]:
    """Asks these processes to end, waits, and kills those that did not. Returns whom it had to kill."""
    _signal(pids, signal.SIGTERM)
    give_up_s = time.monotonic() + patience_s
    while (alive := {pid for pid in pids if _is_alive(pid)}) and time.monotonic() < give_up_s:
        time.sleep(POLL_S)
    _signal(alive, signal.SIGKILL)
    return alive


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
