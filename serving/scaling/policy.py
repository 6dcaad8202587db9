"""Decides how many replicas a model should have, and says why. Told in windows of about a second; remembers little.

Up is quick and by at most twice: somebody waits. Down is slow and only to what would still have air: a replica that is
missed a minute later costs a cold start. Between the two lies a wide band in which nothing happens, which is what keeps
it from swinging: a replica fewer is asked for only while the rest would stay below `load_target`, one more only when
requests wait longer than they should.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp
from typing import NamedTuple

from serving.scaling.signals import Signal

SECOND_NS = 1_000_000_000
SMOOTHING = 0.1  # work is averaged over this part of the time that it must be low for
SETTLE_NS = 5 * SECOND_NS  # new replicas have to take their part of the queue before more are asked for
START_NS = 30 * SECOND_NS  # after this long, more are asked for even if those before have not started yet
MISSES = 0.01  # a larger share of requests without an answer is the queue's fault ...
MISSES_BUSY = 0.5  # ... if the devices are busy; otherwise more of them would not help
CLEARLY_LESS = 0.7  # of the work for which that many replicas were too few


class Cause(StrEnum):
    """Why the target is what it is."""

    STEADY = "steady"
    WAIT = "wait"
    QUEUE = "queue"
    MISSES = "misses"
    IDLE = "idle"
    BOUNDS = "bounds"
    AWAKENED = "awakened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How many replicas, and why, for a person to read."""

    replicas: int
    cause: Cause
    reason: str


class Pressure(NamedTuple):
    """What calls for more replicas: how many times what is allowed, and in words."""

    ratio: float
    cause: Cause
    why: str


@dataclass(slots=True)
class Memory:
    """What is remembered from window to window.

    work: devices' work, averaged.
    too_few, too_much_work: so many replicas were too few for so much work, the last time more were needed.
    """

    work: float = 0.0
    too_few: int = 0
    too_much_work: float = 0.0
    seen_ns: int = 0
    pressed_since_ns: int | None = None
    low_since_ns: int | None = None
    raised_ns: int | None = None
    whole_since_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules for one model.

    min_replicas, max_replicas: bounds; with 0 a model that nobody asks for goes to sleep.
    wait_ns: more replicas if a newcomer may expect to wait longer than this.
    queue_requests: more replicas if on average more requests than this wait at each.
    up_after_ns, down_after_ns: how long that must hold.
    load_target: fewer replicas if those that stay would need at most this share of their time.
    """

    min_replicas: int
    max_replicas: int
    wait_ns: int
    queue_requests: int
    up_after_ns: int
    down_after_ns: int
    load_target: float

    def decide(self, signal: Signal, current: int, memory: Memory, now_ns: int) -> Target:
        """current: how many replicas are wanted now, running or not. Updates `memory`."""
        self._remember(signal, current, memory, now_ns)
        if not self.min_replicas <= current <= self.max_replicas:
            within = min(max(current, self.min_replicas), self.max_replicas)
            return Target(replicas=within, cause=Cause.BOUNDS, reason=f"the bounds are {self._bounds()}")
        if signal.replicas == 0:
            return Target(replicas=current, cause=Cause.STEADY, reason="no replica reports yet")
        pressure = max(self._pressures(signal), default=None, key=lambda found: found.ratio)
        if pressure is not None:
            return self._up(pressure, signal, current, memory, now_ns)
        memory.pressed_since_ns = None
        return self._down(signal, current, memory, now_ns)

    def _pressures(self, signal: Signal) -> Iterator[Pressure]:
        """Everything that calls for more replicas."""
        if signal.wait_ns > self.wait_ns:
            ratio = signal.wait_ns / self.wait_ns
            yield Pressure(
                ratio, Cause.WAIT, f"a wait of {signal.wait_ns / 1e6:.0f} ms, {self.wait_ns / 1e6:.0f} ms are allowed"
            )
        each = signal.queued / signal.replicas
        if each > self.queue_requests:
            ratio = each / self.queue_requests
            yield Pressure(
                ratio, Cause.QUEUE, f"{each:.0f} requests wait at each replica, {self.queue_requests} are allowed"
            )
        if signal.missed > MISSES * signal.received and signal.busy_ratio >= MISSES_BUSY:
            share = signal.missed / max(signal.received, signal.missed)
            yield Pressure(
                1.0 + share, Cause.MISSES, f"{signal.missed} of {signal.received} requests found no time or place"
            )

    def _up(self, pressure: Pressure, signal: Signal, current: int, memory: Memory, now_ns: int) -> Target:
        ratio, cause, why = pressure
        memory.low_since_ns = None
        if memory.pressed_since_ns is None:
            memory.pressed_since_ns = now_ns
        if current >= self.max_replicas:
            return Target(replicas=current, cause=Cause.BOUNDS, reason=f"{why}; no more than {current} are allowed")
        if now_ns - memory.pressed_since_ns < self.up_after_ns:
            return Target(replicas=current, cause=Cause.STEADY, reason=f"{why}; watching whether it lasts")
        if not _has_settled(memory, now_ns):
            return Target(replicas=current, cause=Cause.STEADY, reason=f"{why}; the latest replicas are still starting")
        wanted = min(self.max_replicas, max(current + 1, ceil(current * min(2.0, ratio))))
        memory.raised_ns, memory.whole_since_ns, memory.pressed_since_ns = now_ns, None, None
        memory.too_few, memory.too_much_work = current, signal.work
        return Target(replicas=wanted, cause=cause, reason=why)

    def _down(self, signal: Signal, current: int, memory: Memory, now_ns: int) -> Target:
        needed = self._needed(signal, memory)
        if needed >= current:
            memory.low_since_ns = None
            return Target(
                replicas=current, cause=Cause.STEADY, reason=f"{signal.busy_ratio:.0%} busy, nobody waits long"
            )
        if memory.low_since_ns is None:
            memory.low_since_ns = now_ns
        low_ns = now_ns - memory.low_since_ns
        why = f"{memory.work:.2f} devices' work for {low_ns / 1e9:.0f} s: {needed} would do"
        if low_ns < self.down_after_ns:
            return Target(replicas=current, cause=Cause.STEADY, reason=why)
        memory.low_since_ns = None  # the next step has to earn its own time
        return Target(replicas=max(needed, current // 2), cause=Cause.IDLE, reason=why)

    def _needed(self, signal: Signal, memory: Memory) -> int:
        """The fewest replicas that would have air, as far as is known; 0 only while nobody asks at all."""
        if not (signal.received or signal.queued or signal.busy_ratio):
            return self.min_replicas
        needed = max(1, ceil(memory.work / self.load_target))
        if memory.work > CLEARLY_LESS * memory.too_much_work:
            needed = max(needed, memory.too_few + 1)
        return max(self.min_replicas, needed)

    def _remember(self, signal: Signal, current: int, memory: Memory, now_ns: int) -> None:
        """Averages the work, and notes since when all wanted replicas have been there."""
        if signal.replicas:
            passed_ns = now_ns - memory.seen_ns if memory.seen_ns else self.down_after_ns
            memory.work += (1.0 - exp(-passed_ns / (SMOOTHING * self.down_after_ns))) * (signal.work - memory.work)
            memory.seen_ns = now_ns
        if signal.replicas < current:
            memory.whole_since_ns = None
        elif memory.whole_since_ns is None:
            memory.whole_since_ns = now_ns

    def _bounds(self) -> str:
        return f"{self.min_replicas} to {self.max_replicas}"


def _has_settled(memory: Memory, now_ns: int) -> bool:
    """Whether the replicas of the last rise have had their chance."""
    if memory.raised_ns is None or now_ns - memory.raised_ns >= START_NS:
        return True
    return memory.whole_since_ns is not None and now_ns - memory.whole_since_ns >= SETTLE_NS
