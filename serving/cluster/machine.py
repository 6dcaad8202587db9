"""Memory that this machine really has to give: as the container sees it, not as the host has it."""

from pathlib import Path

from models.cores import CGROUP, numbers

MEMINFO = Path("/proc/meminfo")


def available_memory_bytes(root: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """What can still be taken: the machine's free memory, or what the control group's limit leaves if that is less."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = numbers(root / "memory.max"), numbers(root / "memory.current")
    if not limit:
        limit = numbers(root / "memory" / "memory.limit_in_bytes")
        used = numbers(root / "memory" / "memory.usage_in_bytes")
    return min(free, max(0, limit[0] - used[0])) if limit and used else free
