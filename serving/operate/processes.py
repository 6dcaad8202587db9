"""The processes this one has started, and their end: HAProxy and Ray's helpers outlive a plain shutdown."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.05


class Interrupted(BaseException):
    """A signal to stop came. No Exception: what is interrupted must not take it for a failure of its own."""


class StopSignal:
    """Ctrl-C, SIGTERM or the end of the terminal (SIGHUP), to be waited for.

    A `threading.Event` set in a signal handler deadlocks when a second signal interrupts the first's `set`, as an
    impatient Ctrl-C Ctrl-C does. A byte in a pipe does not.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._interrupts = False
        self.listen()

    def listen(self) -> None:
        """From now on, whoever listened before. What is ignored stays so: `nohup` has SIGHUP ignored."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within, the first signal raises Interrupted: what waits for other processes would hear of it late."""
        self._interrupts = True
        try:
            if self.wait(0):
                raise Interrupted
            yield
        finally:
            self._interrupts = False

    def _hear(self, *_: object) -> None:
        os.write(self._write, b"!")
        if self._interrupts:
            self._interrupts = False
            raise Interrupted

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether a signal has come, now or within the time given (None: however long it takes)."""
        return bool(select.select([self._read], [], [], timeout_s)[0])


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
    stubborn = _wait_for_end(pids, patience_s)
    _signal(stubborn, signal.SIGKILL)
    _wait_for_end(stubborn, patience_s)
    return stubborn


def _wait_for_end(pids: set[int], patience_s: float) -> set[int]:
    """Those that are still alive after this time."""
    give_up_s = time.monotonic() + patience_s
    while (alive := {pid for pid in pids if is_alive(pid)}) and time.monotonic() < give_up_s:
        time.sleep(POLL_S)
    return alive


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def is_alive(pid: int) -> bool:
    """Whether it still runs; one that has ended and only waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
