"""Decides the target of a model (its number of replicas) and gives the reason, for each window of about a second.

Scaling up is quick, because requests are waiting, but at most doubles the target. Scaling down is slow and leaves spare
capacity, because a replica that is needed again a minute later costs a cold start. Between the two lies a wide band
without changes, which prevents oscillation: the target falls only if the remaining replicas would stay below
`load_target`, and rises only if requests wait longer than allowed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, exp
from typing import NamedTuple

from serving.scaling.signals import Signal

SECOND_NS = 1_000_000_000
SMOOTHING = 0.1  # time constant of the average of work, as a share of `down_after_ns`
COOLDOWN_NS = 5 * SECOND_NS  # new replicas get this time to take their part of the queue before the target rises again
START_NS = 30 * SECOND_NS  # after this time the target may rise again even if replicas have not started yet
MISSES = 0.01  # a larger share of missed requests calls for more replicas ...
MISSES_BUSY = 0.5  # ... if devices are busy for at least this share; otherwise more replicas would not help
CLEARLY_LESS = 0.7  # of the work for which a number of replicas was too few; below it that number is tried again


class Cause(StrEnum):
    """The cause of a target."""

    STEADY = "steady"
    WAIT = "wait"
    QUEUE = "queue"
    MISSES = "misses"
    IDLE = "idle"
    BOUNDS = "bounds"
    AWAKENED = "awakened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The number of replicas wanted, with its cause and a reason for people to read."""

    replicas: int
    cause: Cause
    reason: str


class Pressure(NamedTuple):
    """A condition that calls for more replicas. ratio: the measured value divided by the allowed one. why: in words."""

    ratio: float
    cause: Cause
    why: str


@dataclass(slots=True)
class History:
    """The state of the policy between windows. Instants are None while they do not apply.

    work: moving average of `Signal.work`, in devices.
    too_few, too_much_work: the target and the work when the target was last raised: so few were too few for it.
    seen_ns: instant of the last window with a reading; 0 before the first.
    pressed_since_ns: start of the present pressure. low_since_ns: since when fewer replicas would suffice.
    raised_ns: when the target was last raised. whole_since_ns: since when all replicas of the target report.
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
    """The scaling rules of one model.

    min_replicas, max_replicas: bounds of the target; with a minimum of 0 an unused model is scaled to zero.
    wait_ns: scale up if a new request is expected to wait longer than this.
    queue_requests: scale up if more requests than this wait at each replica on average.
    up_after_ns, down_after_ns: how long a condition must hold before the target rises or falls.
    load_target: scale down if the remaining replicas would be busy for at most this share of their time.
    """

    min_replicas: int
    max_replicas: int
    wait_ns: int
    queue_requests: int
    up_after_ns: int
    down_after_ns: int
    load_target: float

    def decide(self, signal: Signal, current: int, memory: History, now_ns: int) -> Target:
        """Returns the target after one window. Updates `memory`.

        current: the present target, whether or not its replicas run. now_ns: monotonic time.
        """
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
        """Yields all conditions that call for more replicas."""
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
                1.0 + share, Cause.MISSES, f"{signal.missed} of {signal.received} requests expired or were refused"
            )

    def _up(self, pressure: Pressure, signal: Signal, current: int, memory: History, now_ns: int) -> Target:
        ratio, cause, why = pressure
        memory.low_since_ns = None
        if memory.pressed_since_ns is None:
            memory.pressed_since_ns = now_ns
        if current >= self.max_replicas:
            return Target(replicas=current, cause=Cause.BOUNDS, reason=f"{why}; no more than {current} are allowed")
        if now_ns - memory.pressed_since_ns < self.up_after_ns:
            return Target(replicas=current, cause=Cause.STEADY, reason=f"{why}; watching whether it lasts")
        if not _is_cooled_down(memory, now_ns):
            return Target(replicas=current, cause=Cause.STEADY, reason=f"{why}; the latest replicas are still starting")
        wanted = min(self.max_replicas, max(current + 1, ceil(current * min(2.0, ratio))))
        memory.raised_ns, memory.whole_since_ns, memory.pressed_since_ns = now_ns, None, None
        memory.too_few, memory.too_much_work = current, signal.work
        return Target(replicas=wanted, cause=cause, reason=why)

    def _down(self, signal: Signal, current: int, memory: History, now_ns: int) -> Target:
        needed = self._needed(signal, memory)
        if needed >= current:
            memory.low_since_ns = None
            return Target(
                replicas=current, cause=Cause.STEADY, reason=f"{signal.busy_ratio:.0%} busy, no request waits long"
            )
        if memory.low_since_ns is None:
            memory.low_since_ns = now_ns
        low_ns = now_ns - memory.low_since_ns
        why = f"{memory.work:.2f} devices' work for {low_ns / 1e9:.0f} s: {needed} replicas suffice"
        if low_ns < self.down_after_ns:
            return Target(replicas=current, cause=Cause.STEADY, reason=why)
        memory.low_since_ns = None  # the next step down needs its own `down_after_ns`
        return Target(replicas=max(needed, current // 2), cause=Cause.IDLE, reason=why)

    def _needed(self, signal: Signal, memory: History) -> int:
        """Returns the fewest replicas that would have spare capacity; 0 only while there are no requests at all."""
        if not (signal.received or signal.queued or signal.busy_ratio):
            return self.min_replicas
        needed = max(1, ceil(memory.work / self.load_target))
        if memory.work > CLEARLY_LESS * memory.too_much_work:
            needed = max(needed, memory.too_few + 1)
        return max(self.min_replicas, needed)

    def _remember(self, signal: Signal, current: int, memory: History, now_ns: int) -> None:
        """Averages the work exponentially and records since when all replicas of the target have reported."""
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


def _is_cooled_down(memory: History, now_ns: int) -> bool:
    """Returns whether the replicas of the last rise have had time to take effect, or have failed to start in time."""
    if memory.raised_ns is None or now_ns - memory.raised_ns >= START_NS:
        return True
    return memory.whole_since_ns is not None and now_ns - memory.whole_since_ns >= COOLDOWN_NS
