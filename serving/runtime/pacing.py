"""Follows the CPU time that the container uses, for the pauses between batches (`core/pace.py`)."""

from collections.abc import Sequence

from models.cores import ControlGroup, affine_cores, strictest
from serving.core.pace import CpuQuota, Pace

READ_EVERY_NS = 5_000_000
LOOK_EVERY_NS = 1_000_000_000  # quotas rarely change


class Pacer:
    """Reads quota and use of the strictest of the control groups around this process, and passes them on."""

    def __init__(self, pace: Pace, groups: Sequence[ControlGroup]) -> None:
        self._pace = pace
        self._groups = groups
        self._cores = affine_cores()
        self._group: ControlGroup | None = None
        self._quota: CpuQuota | None = None
        self._look_ns = 0
        self._read_ns = 0

    def follow(self, now_ns: int) -> None:
        """Reads what is due: the use every 5 ms while the quota needs pauses, the quota every second."""
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + LOOK_EVERY_NS
            self._look()
        elif not self._pace.is_limited or now_ns < self._read_ns:
            return
        self._read_ns = now_ns + READ_EVERY_NS
        used_ns = None if self._group is None else self._group.used_ns()
        if used_ns is None:
            self._pace.limit(now_ns, None, 0)
        else:
            self._pace.limit(now_ns, self._quota, used_ns)
            self._pace.follow(now_ns, used_ns)

    def _look(self) -> None:
        self._group = self._quota = None
        found = strictest(self._groups)
        if found is not None:
            self._group, limit = found
            self._quota = CpuQuota(limit.cpu_ns, limit.period_ns, self._cores)
