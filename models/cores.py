"""The CPU cores that this process may use: a container's quota may be less than the machine's cores."""

import os
from collections.abc import Sequence
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(root: Path = CGROUP, affinity: int | None = None) -> float:
    """Returns the cores that this process may use: the smaller of its CPU affinity and its cgroup's quota (version 2,
    then 1).

    affinity: the number of cores it may run on; None: the kernel is asked."""
    cores = float(affinity or _affinity())
    quota = numbers(root / "cpu.max") or [
        *numbers(root / "cpu" / "cpu.cfs_quota_us"),
        *numbers(root / "cpu" / "cpu.cfs_period_us"),
    ]
    if len(quota) == 2 and quota[0] > 0:
        return min(cores, quota[0] / quota[1])
    return cores


def numbers(path: Path) -> Sequence[int]:
    """Reads the numbers in a control group's file; empty if the file is missing or contains "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
