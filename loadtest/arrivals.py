"""Draws the schedule of shots (planned requests) before the first one, so that slow answers cannot reduce the rate.

All functions are pure except `replay`, which reads a file. A schedule is an ascending tuple of whole nanoseconds since
the start."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from loadtest.spec import call, parse

SECOND_NS = 1_000_000_000
Schedule = tuple[int, ...]


def schedule(text: str, rate: float, seconds: float, seed: int = 0) -> Schedule:
    """Returns the schedule that `--arrivals TEXT` names. Raises BadSpec."""
    drawn: Schedule = call(parse(text, "arrivals"), ARRIVALS, "arrivals", rate=rate, seconds=seconds, seed=seed)
    return drawn


def constant(rate: float, seconds: float) -> Schedule:
    """Returns evenly spaced instants: the first at 0, then one every 1/rate seconds."""
    _check(rate, seconds)
    # Each instant is computed from its index: a sum of rounded gaps would drift.
    return tuple(round(index * SECOND_NS / rate) for index in range(round(rate * seconds)))


def poisson(rate: float, seconds: float, seed: int = 0) -> Schedule:
    """Returns a Poisson process, the arrivals of many independent clients. Equal seeds give equal schedules."""
    _check(rate, seconds)
    return _poisson(lambda _: rate, rate, seconds, seed)


def bursts(
    rate: float, seconds: float, seed: int = 0, *, peak: float = 5.0, duty: float = 0.1, period: float = 1.0
) -> Schedule:
    """Returns a Poisson process whose rate is `peak` times the mean for a share `duty` of each `period` (seconds).

    Between the bursts the rate is lower, so that `rate` is the mean over whole periods."""
    _check(rate, seconds, peak=peak, duty=duty, period=period)
    if duty >= 1 or peak * duty > 1:
        raise ValueError(f"peak times duty, the share in bursts, must be at most 1, got {peak} times {duty}")
    calm = (1 - peak * duty) / (1 - duty)
    return _poisson(lambda at_s: rate * (peak if at_s % period < duty * period else calm), rate * peak, seconds, seed)


def ramp(rate: float, seconds: float, seed: int = 0, *, to: float) -> Schedule:
    """Returns a Poisson process whose rate changes linearly from `rate` to `to` requests per second."""
    _check(rate, seconds, to=to)
    return _poisson(lambda at_s: rate + (to - rate) * at_s / seconds, max(rate, to), seconds, seed)


def sinusoid(rate: float, seconds: float, seed: int = 0, *, swing: float = 0.8, period: float = 10.0) -> Schedule:
    """Returns a Poisson process whose rate oscillates around `rate`, by a share `swing` of it, once per `period`
    seconds, like the load of a day."""
    _check(rate, seconds, swing=swing, period=period)
    if swing > 1:
        raise ValueError(f"swing: must be at most 1, got {swing}")
    frequency = 2 * math.pi / period
    return _poisson(lambda at_s: rate * (1 + swing * math.sin(frequency * at_s)), rate * (1 + swing), seconds, seed)


def replay(file: str, seconds: float, *, speed: float = 1.0) -> Schedule:
    """Returns the instants of a trace: one JSON line each, an object with `planned_ns` (written by `--shots`) or
    `at_s`, or a number of seconds.

    Starts at the first instant and lasts at most `seconds` of the run's time. `speed` 2 replays the trace in half the
    time, at twice its rate. Only the instant of each line is used."""
    _check(speed, seconds)
    instants = sorted(_instant_s(line) for line in Path(file).read_text("utf-8-sig").split("\n") if line.strip())
    if not instants:
        raise ValueError(f"{file} contains no instants")
    due = (round((instant - instants[0]) / speed * SECOND_NS) for instant in instants)
    return tuple(instant for instant in due if instant < seconds * SECOND_NS)


ARRIVALS: Mapping[str, Callable[..., Schedule]] = {
    "constant": constant,
    "poisson": poisson,
    "bursts": bursts,
    "ramp": ramp,
    "sinusoid": sinusoid,
    "replay": replay,
}


def _poisson(rate_at: Callable[[float], float], highest: float, seconds: float, seed: int) -> Schedule:
    """Draws a Poisson process of varying rate by thinning (Lewis and Shedler 1979): arrivals are drawn at the highest
    rate, and each is kept with probability rate_at(instant) / highest."""
    generator = random.Random(seed)
    kept: list[int] = []
    due_s = generator.expovariate(highest)
    while due_s < seconds:
        rate = rate_at(due_s)
        if rate >= highest or generator.random() * highest < rate:
            kept.append(round(due_s * SECOND_NS))
        due_s += generator.expovariate(highest)
    return tuple(kept)


def _instant_s(line: str) -> float:
    value = json.loads(line)
    if isinstance(value, dict):
        if "at_s" in value:
            return float(value["at_s"])
        if "planned_ns" in value:
            return float(value["planned_ns"]) / SECOND_NS
        raise ValueError(f"a line has neither at_s nor planned_ns: {line[:80]}")
    return float(value)


def _check(rate: float, seconds: float, **others: float) -> None:
    for name, value in {"rate": rate, "seconds": seconds, **others}.items():
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"{name}: must be positive, got {value}")
