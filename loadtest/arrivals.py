"""When each shot is due: the whole schedule is drawn before the first shot, so that no slow answer can thin it out.

Pure, but for `replay`, which reads a file. A schedule is a tuple of whole nanoseconds since the start, ascending."""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from loadtest.spec import call, parse

SECOND_NS = 1_000_000_000
Schedule = tuple[int, ...]


def schedule(text: str, rate: float, seconds: float, seed: int = 0) -> Schedule:
    """The schedule that `--arrivals TEXT` names. Raises BadSpec with what does not fit."""
    drawn: Schedule = call(parse(text, "arrivals"), ARRIVALS, "arrivals", rate=rate, seconds=seconds, seed=seed)
    return drawn


def constant(rate: float, seconds: float) -> Schedule:
    """Evenly spaced: the first at once, then one each 1/rate seconds."""
    _check(rate, seconds)
    # Each from its own index: adding up a rounded gap would drift.
    return tuple(round(index * SECOND_NS / rate) for index in range(round(rate * seconds)))


def poisson(rate: float, seconds: float, seed: int = 0) -> Schedule:
    """Like many clients that know nothing of each other; bursts happen. Equal seeds give equal schedules."""
    _check(rate, seconds)
    return _poisson(lambda _: rate, rate, seconds, seed)


def bursts(
    rate: float, seconds: float, seed: int = 0, *, peak: float = 5.0, duty: float = 0.1, period: float = 1.0
) -> Schedule:
    """Poisson whose rate jumps to `peak` times the mean for a share `duty` of each `period` (seconds).

    What is left of the mean comes in between, so `rate` is kept over whole periods."""
    _check(rate, seconds, peak=peak, duty=duty, period=period)
    if duty >= 1 or peak * duty > 1:
        raise ValueError(f"peak times duty is the share that comes in bursts: at most 1, got {peak} times {duty}")
    calm = (1 - peak * duty) / (1 - duty)
    return _poisson(lambda at_s: rate * (peak if at_s % period < duty * period else calm), rate * peak, seconds, seed)


def ramp(rate: float, seconds: float, seed: int = 0, *, to: float) -> Schedule:
    """Poisson that begins at `rate` and ends at `to` requests per second, in a straight line."""
    _check(rate, seconds, to=to)
    return _poisson(lambda at_s: rate + (to - rate) * at_s / seconds, max(rate, to), seconds, seed)


def sinusoid(rate: float, seconds: float, seed: int = 0, *, swing: float = 0.8, period: float = 10.0) -> Schedule:
    """Poisson that swings around `rate` by a share `swing` of it, once in `period` seconds: a day in short."""
    _check(rate, seconds, swing=swing, period=period)
    if swing > 1:
        raise ValueError(f"swing: at most 1, got {swing}")
    turn = 2 * math.pi / period
    return _poisson(lambda at_s: rate * (1 + swing * math.sin(turn * at_s)), rate * (1 + swing), seconds, seed)


def replay(file: str, seconds: float, *, speed: float = 1.0) -> Schedule:
    """The instants of a trace: JSON lines with `planned_ns` (as `--shots` writes them) or `at_s`, or a number a line.

    From its first instant, for at most `seconds` of our own time. `speed` 2 plays it in half the time, at twice its
    rate. Of each line only the instant is used."""
    _check(speed, seconds)
    instants = sorted(_instant_s(line) for line in Path(file).read_text("utf-8-sig").split("\n") if line.strip())
    if not instants:
        raise ValueError(f"{file} holds no instant")
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
    """A Poisson process whose rate changes, by thinning (Lewis and Shedler 1979): draw at the highest rate and keep
    each with the share that the rate at its instant has of it."""
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
