"""What this machine really has to give: cores and memory as the container sees them, not as the host has them."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def available_cores(root: Path = CGROUP, affinity: int | None = None) -> float:
    """The fewest of: cores this process may run on, and the quota of its control group (version 2 or 1)."""
    cores = float(affinity or len(os.sched_getaffinity(0)))
    quota = _numbers(root / "cpu.max") or [
        *_numbers(root / "cpu" / "cpu.cfs_quota_us"),
        *_numbers(root / "cpu" / "cpu.cfs_period_us"),
    ]
    if len(quota) == 2 and quota[0] > 0:
        return min(cores, quota[0] / quota[1])
    return cores


def available_memory_bytes(root: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """What can still be taken: the machine's free memory, or what the control group's limit leaves if that is less."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _numbers(root / "memory.max"), _numbers(root / "memory.current")
    if not limit:
        limit = _numbers(root / "memory" / "memory.limit_in_bytes")
        used = _numbers(root / "memory" / "memory.usage_in_bytes")
    return min(free, max(0, limit[0] - used[0])) if limit and used else free


def _numbers(path: Path) -> list[int]:
    """The numbers in a control group's file; none if there is no such file or it says "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []
