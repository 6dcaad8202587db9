"""Reads how much memory is available in this container, which may be less than on the host."""

from pathlib import Path

from models.cores import CGROUP, numbers

MEMINFO = Path("/proc/meminfo")


def available_memory_bytes(root: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Returns the smaller of the machine's available memory and what the control group's limit (v2 or v1) leaves."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = numbers(root / "memory.max"), numbers(root / "memory.current")
    if not limit:
        limit = numbers(root / "memory" / "memory.limit_in_bytes")
        used = numbers(root / "memory" / "memory.usage_in_bytes")
    return min(free, max(0, limit[0] - used[0])) if limit and used else free
