"""The CPU cores that this process may use: a container's quota may be less than the machine's cores."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")  # a line "number:controllers:path" per hierarchy; version 2 has no controllers


@dataclass(frozen=True, slots=True)
class CpuLimit:
    """The processes of a control group may use `cpu_ns` of CPU time per `period_ns` in all."""

    cpu_ns: int
    period_ns: int

    @property
    def cores(self) -> float:
        return self.cpu_ns / self.period_ns


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The files of a control group. quota: one file, or one each for quota and period (version 1). use: the CPU time
    that its processes have used."""

    quota: Sequence[Path]
    use: Path

    def limit(self) -> CpuLimit | None:
        """Reads the limit in force, None without one."""
        quota_us = [number for path in self.quota for number in numbers(path)]
        if len(quota_us) == 2 and quota_us[0] > 0:
            return CpuLimit(quota_us[0] * 1000, quota_us[1] * 1000)
        return None

    def used_ns(self) -> int | None:
        """Reads the CPU time that the group has used so far, None if the kernel does not tell it."""
        try:
            with open(self.use, "rb", buffering=0) as file:
                words = file.read(64).split(maxsplit=2)
        except OSError:
            return None
        if not words:
            return None
        return int(words[1]) * 1000 if words[0] == b"usage_usec" else int(words[0])


def control_groups(root: Path = CGROUP, own: Path = OWN) -> Sequence[ControlGroup]:
    """Returns the control groups that can limit this process: its own and those around it, as far as it sees them."""
    lines = [line.split(":", 2) for line in own.read_text().splitlines()] if own.exists() else []
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    two = [ControlGroup([folder / "cpu.max"], folder / "cpu.stat") for folder in _up(root, paths.get("", "/"))]
    one = [
        ControlGroup(
            [folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"],
            root / "cpuacct" / folder.relative_to(root / "cpu") / "cpuacct.usage",
        )
        for folder in _up(root / "cpu", paths.get("cpu", "/"))
    ]
    return [group for group in (*two, *one) if group.quota[0].exists()]


def strictest(groups: Sequence[ControlGroup]) -> tuple[ControlGroup, CpuLimit] | None:
    """Returns the group with the lowest limit, None if none has one."""
    limited = [(group, limit) for group in groups if (limit := group.limit()) is not None]
    return min(limited, key=lambda found: found[1].cores, default=None)


def usable_cores(root: Path = CGROUP, own: Path = OWN, affinity: int | None = None) -> float:
    """Returns the cores that this process may use: the smaller of its CPU affinity and the quota of its control group
    or of one around it (version 2 or 1).

    affinity: the number of cores it may run on; None: the kernel is asked."""
    cores = float(affinity or affine_cores())
    found = strictest(control_groups(root, own))
    return cores if found is None else min(cores, found[1].cores)


def affine_cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numbers(path: Path) -> Sequence[int]:
    """Reads the numbers in a control group's file; empty if the file is missing or contains "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def _up(root: Path, path: str) -> Iterator[Path]:
    """Yields the folders from `root / path` up to `root`."""
    below = PurePosixPath(path.lstrip("/"))
    yield root / below
    for parent in below.parents:
        yield root / parent
