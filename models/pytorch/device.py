"""Where a module runs and with how many threads: decided once, when it is loaded, and said in the log."""

import logging
import math
import os
from contextlib import suppress
from pathlib import Path

import torch

from models.spec import Resources

log = logging.getLogger(__name__)

CGROUP = Path("/sys/fs/cgroup")


def choose_device(resources: Resources, *, cuda_is_available: bool | None = None) -> torch.device:
    """The first GPU this process may see if the model asked for one, else the CPU. A missing GPU is loudly said."""
    if resources.gpus <= 0:
        return torch.device("cpu")
    if torch.cuda.is_available() if cuda_is_available is None else cuda_is_available:
        return torch.device("cuda", 0)
    log.warning(
        "asked for %g GPU(s), but torch %s sees none: serving on the CPU instead, which may be many times slower",
        resources.gpus,
        torch.__version__,
    )
    return torch.device("cpu")


def thread_count(asked_cpus: float, usable_cpus: float) -> int:
    """Whole threads for the intra-op pool: what was asked for, within what there is, and at least one."""
    return max(1, math.floor(min(asked_cpus, usable_cpus)))


def usable_cpus(cgroup: Path = CGROUP) -> float:
    """Cores this process may really use. torch heeds neither the affinity's change nor a container's quota."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(float(affinity), _cgroup_quota(cgroup))


def set_threads(threads: int) -> None:
    """More threads than cores make each batch wait for the slowest: fewer is safe, more is not."""
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # torch allows this once per process, before its first parallel work
        torch.set_num_interop_threads(1)  # one batch at a time: nothing to run beside it


def _cgroup_quota(root: Path) -> float:
    """Cores allowed by the container's CPU quota (cgroup v2, then v1); infinite where there is none."""
    with suppress(OSError, ValueError):
        quota, period = (root / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
        return quota_us / period_us if quota_us > 0 else math.inf
    return math.inf
