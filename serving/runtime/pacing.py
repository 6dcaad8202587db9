"""Follows the CPU time that the container uses, for the pauses between batches (`core/pace.py`)."""

from collections.abc import Sequence

from models.cores import ControlGroup, affine_cores, strictest
from serving.core.pace import Pace, Quota

READ_EVERY_NS = 5_000_000
LOOK_EVERY_NS = 1_000_000_000  # quotas rarely change


class Pacer:
    """Reads quota and use of the strictest of the control groups around this process, and passes them on."""

    def __init__(self, pace: Pace, groups: Sequence[ControlGroup]) -> None:
        self._pace = pace
        self._groups = groups
        self._cores = affine_cores()
        self._group: ControlGroup | None = None
        self._look_ns = 0
        self._read_ns = 0

    def follow(self, now_ns: int) -> None:
        """Reads what is due: the use every 5 ms while the quota needs pauses, the quota every second."""
        if now_ns >= self._look_ns:
            self._look_ns = now_ns + LOOK_EVERY_NS
            self._look(now_ns)
        if self._pace.is_limited and now_ns >= self._read_ns and self._group is not None:
            self._read_ns = now_ns + READ_EVERY_NS
            used_ns = self._group.used_ns()
            if used_ns is None:
                self._pace.limit(now_ns, None, 0)
            else:
                self._pace.follow(now_ns, used_ns)

    def _look(self, now_ns: int) -> None:
        found = strictest(self._groups)
        used_ns = None if found is None else found[0].used_ns()
        if found is None or used_ns is None:
            self._pace.limit(now_ns, None, 0)
            return
        self._group, limit = found
        self._pace.limit(now_ns, Quota(limit.cpu_ns, limit.period_ns, self._cores), used_ns)
