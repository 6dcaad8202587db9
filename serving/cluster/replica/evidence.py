"""Reports to the front what a release is judged by: counts of requests, latencies, values for answers.

Off until the front asks, and off again when it has not asked for a while: then latencies are not counted finely, and
no ids are remembered.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from serving.api.feedback import FeedbackBox
from serving.core.clock import SystemClock
from serving.core.witness import Witness
from serving.telemetry.answered import AnsweredIds
from serving.telemetry.cache import CacheCounts
from serving.telemetry.recorder import Recorder
from serving.traffic.evidence import Counted, Reading
from serving.traffic.feedback import Feedback, Report

OFF_AFTER_S = 120.0
_INVALID = (("failed", "invalid_input"), ("rejected", "too_large"))
_NOT_THE_MODEL = ("failed", "features_unavailable")


class Evidence:
    """The evidence of one replica.

    replica: its name, which no other replica has. witnesses: of its requests; while the front asks, there is one
    more. read_cache: None without a cache.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        replica: str,
        box: FeedbackBox,
        witnesses: list[Witness],
        read_cache: Callable[[], CacheCounts] | None = None,
        now_ns: Callable[[], int] = SystemClock.now_ns,
        off_after_s: float = OFF_AFTER_S,
    ) -> None:
        self._recorder = recorder
        self._replica = replica
        self._box = box
        self._witnesses = witnesses
        self._read_cache = read_cache
        self._now_ns = now_ns
        self._off_after_s = off_after_s
        self._ids = AnsweredIds()
        self._before = Counted()  # the counts before this reporting began
        self._began_ns = now_ns()
        self._has_ended = False
        self._ending: asyncio.TimerHandle | None = None

    def report(self, asked: Sequence[tuple[str, str]] = ()) -> Report:
        """Returns what was counted, and received from clients. Call it on the event loop.

        asked: tenants and ids of requests that this replica may have answered."""
        if self._ending is None:
            self._begin()
        else:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(self._off_after_s, self.end)
        answered = self._ids.take(asked)
        uptime_s = (self._now_ns() - self._began_ns) / 1e9
        reading = Reading(f"{self._replica}/{self._began_ns}", uptime_s, self._counted().plus(self._before, -1))
        return Report(reading, tuple(Feedback(*one) for one in self._box.take()), answered)

    def end(self) -> None:
        """Stops counting for a release, and forgets ids and values. The next report begins anew, as another process."""
        if self._ending is None:
            return
        self._ending.cancel()
        self._ending = None
        self._has_ended = True
        self._recorder.latency = None
        self._box.is_open = False
        self._box.take()
        self._witnesses.remove(self._ids)
        self._ids = AnsweredIds()

    def _begin(self) -> None:
        if self._has_ended:
            self._before, self._began_ns = self._counted(), self._now_ns()
        self._recorder.latency = Counter()
        self._box.is_open = True
        self._witnesses.append(self._ids)

    def _counted(self) -> Counted:
        counts = self._recorder.counts()
        cache = None if self._read_cache is None else self._read_cache()
        latency: Mapping[int, int] = self._recorder.latency or {}
        if cache is None:
            return counted(counts.request_ns.count(), counts.ended, latency)
        return counted(counts.request_ns.count(), counts.ended - cache.ended, latency, cached=cache.hits)


def counted(
    answered: int, ended: Mapping[tuple[str, str], int], latency: Mapping[int, int], *, cached: int = 0
) -> Counted:
    """Returns the counts by who is to blame. ended: computed requests without an answer, by (outcome, reason)."""
    sums: Counter[str] = Counter()
    for (outcome, reason), number in ended.items():
        if (outcome, reason) in _INVALID:
            sums["invalid"] += number
        elif outcome == "failed" and (outcome, reason) != _NOT_THE_MODEL:
            sums["failed"] += number
        else:
            sums["cancelled" if outcome == "cancelled" else "refused"] += number
    return Counted(answered=answered, cached=cached, latency=dict(latency), **sums)
