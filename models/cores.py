"""The CPU cores that this process may use: a container's quota may be less than the machine's cores."""

import os
from collections.abc import Sequence
from math import inf
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def usable_cores(root: Path = CGROUP, affinity: int | None = None) -> float:
    """Returns the cores that this process may use: the smaller of its CPU affinity and its cgroup's quota (version 2,
    then 1).

    affinity: the number of cores it may run on; None: the kernel is asked."""
    return min(float(affinity or _affinity()), _quota(root, root / "cpu"))


def has_quota(root: Path = CGROUP, own: Path = OWN, affinity: int | None = None) -> bool:
    """Returns whether a quota of its control group, or of the container's, can make this process stand for a while."""
    two, one = root, root / "cpu"
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            two = root / path.lstrip("/")
        elif "cpu" in controllers.split(","):
            one = root / "cpu" / path.lstrip("/")
    return min(_quota(root, root / "cpu"), _quota(two, one)) < (affinity or _affinity())


def _quota(two: Path, one: Path) -> float:
    """Returns the cores of the control group in folder `two` (version 2) or else `one` (version 1)."""
    quota = numbers(two / "cpu.max") or [*numbers(one / "cpu.cfs_quota_us"), *numbers(one / "cpu.cfs_period_us")]
    return quota[0] / quota[1] if len(quota) == 2 and quota[0] > 0 else inf


def numbers(path: Path) -> Sequence[int]:
    """Reads the numbers in a control group's file; empty if the file is missing or contains "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
