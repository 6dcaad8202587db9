"""Real disturbances of a running server: busy neighbours, stalls, and quotas of a control group.

All of them touch only processes that this benchmark has started.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.peers.running import Running

STALL_S, STALL_EVERY_S = 0.05, 0.5
CPU, CPU_USE = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpuacct")  # version 1
UNIFIED = Path("/sys/fs/cgroup")  # version 2
GROUP = "headway-disturbed"
NEARLY_ALL = 0.95  # of the cores: a quota that hardly ever makes the server stand, but is one

Trouble = Callable[[Running], AbstractContextManager[None]]


@contextlib.contextmanager
def neighbours(server: Running) -> Iterator[None]:
    """Runs a busy process of niceness 0 on each core."""
    nice = ["nice", "-n", str(-os.getpriority(os.PRIO_PROCESS, 0))]
    busy = [
        subprocess.Popen([*nice, "taskset", "-c", str(core), "sh", "-c", "while :; do :; done"])
        for core in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stalls(server: Running) -> Iterator[None]:
    """Stops all processes of the server for 50 ms, twice per second."""
    over = threading.Event()

    def stall() -> None:
        while not over.wait(STALL_EVERY_S - STALL_S):
            pids = list(server.members())
            try:
                _signal(pids, signal.SIGSTOP)
                time.sleep(STALL_S)
            finally:
                _signal(pids, signal.SIGCONT)

    thread = threading.Thread(target=stall)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Group:
    """A control group for the server, with a quota that can be changed. Raises OSError if none can be created."""

    def __init__(self) -> None:
        self._is_first = (CPU / "cpu.cfs_quota_us").exists()
        self._folder = (CPU if self._is_first else UNIFIED) / GROUP
        if not self._is_first:
            (UNIFIED / "cgroup.subtree_control").write_text("+cpu")
        self._folders = [self._folder]
        if self._is_first and not CPU_USE.samefile(CPU):
            self._folders.append(CPU_USE / GROUP)
        for folder in self._folders:
            folder.mkdir(exist_ok=True)
        self.limit(NEARLY_ALL * len(os.sched_getaffinity(0)))

    def limit(self, cores: float, period_us: int = 100_000) -> None:
        if self._is_first:
            (self._folder / "cpu.cfs_quota_us").write_text("-1")  # a quota and a period must fit at every moment
            (self._folder / "cpu.cfs_period_us").write_text(str(period_us))
            (self._folder / "cpu.cfs_quota_us").write_text(str(int(cores * period_us)))
        else:
            (self._folder / "cpu.max").write_text(f"{int(cores * period_us)} {period_us}")

    def take(self, server: Running) -> None:
        """Puts the server's processes, and so all that they start, into the group."""
        for pid in server.members():
            for folder in self._folders:
                (folder / "cgroup.procs").write_text(str(pid))

    @contextlib.contextmanager
    def limited(self, cores: float, period_us: int) -> Iterator[None]:
        self.limit(cores, period_us)
        try:
            yield
        finally:
            self.limit(NEARLY_ALL * len(os.sched_getaffinity(0)))

    def close(self) -> None:
        for folder in self._folders:
            with contextlib.suppress(OSError):  # a process of it may not have ended yet
                folder.rmdir()


def of_a_group(group: Group) -> Mapping[str, Trouble]:
    """Returns the disturbances for a server in a control group."""
    cores = len(os.sched_getaffinity(0))
    return {
        "a quota of half a core": lambda server: group.limited(0.5, 100_000),
        "half as fast for a while": lambda server: group.limited(0.5 * cores, 10_000),
    }


ANYWHERE: Mapping[str, Trouble] = {"a busy neighbour per core": neighbours, "stalls of 50 ms": stalls}


def left(cores: int) -> Mapping[str, float]:
    """Returns the share of the CPU time that each disturbance leaves."""
    return {
        "a busy neighbour per core": 0.5,
        "stalls of 50 ms": 1 - STALL_S / STALL_EVERY_S,
        "a quota of half a core": 0.5 / cores,
        "half as fast for a while": 0.5,
    }
