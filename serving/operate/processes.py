"""Finds and ends the processes that this one has started: HAProxy and Ray's helpers outlive a plain shutdown."""

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

POLL_S = 0.05
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal to stop came. Not an Exception, so that code between does not handle it as an error of its own."""


class StopSignal:
    """Waits for Ctrl-C, SIGTERM or the end of the terminal (SIGHUP).

    The handler only writes a byte to a pipe. An exception from it would come at any point of whatever runs, and where
    that is a hook or a destructor, Python drops it, so that the signal is lost. With a `threading.Event`, it would
    deadlock if a second signal (Ctrl-C pressed twice) interrupted `set` of the first.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # stays so: `nohup` ignores SIGHUP
                signal.signal(number, self._hear)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Within the context, nobody else installs a handler for these signals. Ray would, and raise from it."""
        install = signal.signal

        def keep(number: int, handler: Any) -> Any:
            return signal.getsignal(number) if number in STOPS else install(number, handler)

        signal.signal = keep  # type: ignore[assignment]  # its declared type has overloads of numbers and handlers
        try:
            yield
        finally:
            signal.signal = install

    def check(self) -> None:
        """Raises Interrupted if a signal has come."""
        if self.wait(0):
            raise Interrupted

    def _hear(self, *_: object) -> None:
        os.write(self._write, b"!")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for a signal, at most `timeout_s` (None: without limit). Returns whether one has come."""
        return bool(select.select([self._read], [], [], timeout_s)[0])


def descendants(root: int) -> set[int]:
    """Returns the pids of all descendants of `root`, from the parents in /proc."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it ended in the meantime
                continue
            parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def end(pids: set[int], patience_s: float) -> set[int]:
    """Sends SIGTERM to these processes, waits, and kills the rest. Returns the pids of the killed ones."""
    _signal(pids, signal.SIGTERM)
    stubborn = _wait_for_end(pids, patience_s)
    _signal(stubborn, signal.SIGKILL)
    _wait_for_end(stubborn, patience_s)
    return stubborn


def _wait_for_end(pids: set[int], patience_s: float) -> set[int]:
    """Waits until all have ended, at most `patience_s`. Returns the pids that are still alive."""
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
    """Returns whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
