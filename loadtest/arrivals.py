"""When each shot is due: the whole schedule is drawn before the first shot, so that no slow answer can thin it out.

Pure. A schedule is a tuple of whole nanoseconds since the start, ascending."""

import random
from collections.abc import Callable

SECOND_NS = 1_000_000_000
Schedule = tuple[int, ...]


def constant(rate: float, seconds: float) -> Schedule:
    """Evenly spaced: the first at once, then one each 1/rate seconds."""
    _check(rate, seconds)
    # Each from its own index: adding up a rounded gap would drift.
    return tuple(round(index * SECOND_NS / rate) for index in range(round(rate * seconds)))


def poisson(rate: float, seconds: float, seed: int = 0) -> Schedule:
    """Like many clients that know nothing of each other; bursts happen. Equal seeds give equal schedules."""
    _check(rate, seconds)
    generator, end_ns = random.Random(seed), round(seconds * SECOND_NS)
    schedule: list[int] = []
    due_s = generator.expovariate(rate)
    while (due_ns := round(due_s * SECOND_NS)) < end_ns:
        schedule.append(due_ns)
        due_s += generator.expovariate(rate)
    return tuple(schedule)


ARRIVALS: dict[str, Callable[[float, float, int], Schedule]] = {
    "constant": lambda rate, seconds, _seed: constant(rate, seconds),
    "poisson": poisson,
}


def _check(rate: float, seconds: float) -> None:
    if not rate > 0:
        raise ValueError(f"rate: must be positive, got {rate}")
    if not seconds > 0:
        raise ValueError(f"seconds: must be positive, got {seconds}")
