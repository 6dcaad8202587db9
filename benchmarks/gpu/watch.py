"""Reads the driver's statistics of the GPU during a measurement, if they are available."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from serving.telemetry.gpu import GpuSampler, visible_devices
from serving.telemetry.snapshot import GpuReading

INTERVAL_S = 0.2


@contextmanager
def watched() -> Iterator[dict[str, Any]]:
    """Samples the first GPU during the block. The yielded dict is filled at the end, with means over the last half of
    the readings (the last value for non-numbers)."""
    found: dict[str, Any] = {}
    looks: list[GpuReading] = []

    def looked(readings: Sequence[GpuReading]) -> None:
        looks.extend(readings[:1])

    with GpuSampler(devices=visible_devices(os.environ), interval_s=INTERVAL_S, looked=looked):
        yield found
    late = [dataclasses.asdict(look) for look in looks[len(looks) // 2 :]]
    for name in late[0] if late else ():
        values = [look[name] for look in late if look[name] is not None]
        is_number = values and all(type(value) in (int, float) for value in values)
        found[name] = fmean(values) if is_number else values[-1] if values else None
