"""Two rules that look at a minute at a time, as release tools do: a threshold, and a number of failed checks."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from benchmarks.canary.traffic import BUCKETS, FIRST, Arm
from serving.core.octaves import PER_OCTAVE
from serving.traffic.limits import Limits
from serving.traffic.quantile import BEYOND

CHECKS = 5  # failed ones that roll back


def failed_checks(
    traffic: Iterator[tuple[Arm, Arm]], limits: Limits, runs: int, minutes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns, by minute and release, whether the minute's check has failed, and the candidate's requests until then.

    traffic: in ticks of a minute. A check fails if more than the limit of the minute's requests to the candidate
    failed, or the p95 of its answers is over the limit's multiple of the stable version's. Without requests it does
    not fail."""
    failed, requests = np.zeros((minutes, runs), bool), np.zeros((minutes, runs), np.int64)
    before = np.zeros(runs, np.int64)
    for minute, arms in enumerate(islice(traffic, minutes)):
        latency = np.zeros((2, runs, BUCKETS), np.int32)
        for counts, arm in zip(latency, arms, strict=True):
            np.add.at(counts, (arm.run, arm.latency - FIRST), 1)
        both = (latency.sum(axis=2) > 0).all(axis=0)
        slower = (_p95(latency[0]) - _p95(latency[1])) / PER_OCTAVE > np.log2(limits.latency_factor)
        failed[minute] = (arms[0].failed > limits.errors * arms[0].computed) | (both & slower)
        before = requests[minute] = before + arms[0].computed
    return failed, requests


def first(failed: np.ndarray, requests: np.ndarray, checks: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns by release whether it is rolled back after this many failed checks, and after how many requests."""
    reached = np.cumsum(failed, axis=0) >= checks
    rolled_back = np.asarray(reached.any(axis=0))
    return rolled_back, requests[reached.argmax(axis=0), np.arange(failed.shape[1])]


def _p95(latency: np.ndarray) -> np.ndarray:
    seen = np.cumsum(latency, axis=1)
    bucket: np.ndarray = (seen >= np.ceil((1 - BEYOND) * seen[:, -1:])).argmax(axis=1)
    return bucket
