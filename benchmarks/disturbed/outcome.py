"""Figures of what clients got before, during and after a disturbance. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.peers.report import grid
from loadtest.shot import Shot

WINDOW_S = 0.5
RECOVERED = 0.95
SETTLED = 2  # windows in a row
EDGE_S = 0.25  # left out at both edges of a phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of one run. Rates are of answers in time per second. possible_per_s: the smaller of the load and the
    best undisturbed rate times the share of CPU that was left. recovered_s: see `recovered_s`."""

    disturbance: str
    asked_per_s: float
    before_per_s: float
    during_per_s: float
    possible_per_s: float
    recovered_s: float | None

    @property
    def of_possible(self) -> float:
        return self.during_per_s / self.possible_per_s


def in_time_per_s(shots: Sequence[Shot], within_ms: float, start_s: float, end_s: float) -> float:
    """Returns how many of the requests planned between the two instants were answered in time, per second."""
    start_ns, end_ns = start_s * 1e9, end_s * 1e9
    good = sum(shot.is_in_time(int(within_ms * 1e6)) for shot in shots if start_ns <= shot.planned_ns < end_ns)
    return good / (end_s - start_s)


def recovered_s(
    shots: Sequence[Shot], within_ms: float, before_per_s: float, end_s: float, total_s: float
) -> float | None:
    """Returns the seconds after `end_s` from which two windows in a row have 0.95 of the rate before; None if none do.

    With a random load a window may have fewer requests, so what was asked in it is the limit too."""
    good = []
    for window in range(int((total_s - end_s) / WINDOW_S)):
        start_s = end_s + window * WINDOW_S
        asked = sum(start_s * 1e9 <= shot.planned_ns < (start_s + WINDOW_S) * 1e9 for shot in shots) / WINDOW_S
        reached = in_time_per_s(shots, within_ms, start_s, start_s + WINDOW_S)
        good.append(reached >= RECOVERED * min(before_per_s, asked))
    for window in range(len(good) - SETTLED + 1):
        if all(good[window : window + SETTLED]):
            return window * WINDOW_S
    return None


def found(
    disturbance: str,
    shots: Sequence[Shot],
    *,
    within_ms: float,
    rate: float,
    best_per_s: float,
    left: float,
    phase: tuple[float, float],
    total_s: float,
) -> Found:
    """Judges one run. phase: when the disturbance began and ended. best_per_s: the best undisturbed rate. left: the
    share of CPU that the disturbance leaves."""
    began_s, ended_s = phase
    before = in_time_per_s(shots, within_ms, EDGE_S, began_s - EDGE_S)
    return Found(
        disturbance=disturbance,
        asked_per_s=rate,
        before_per_s=before,
        during_per_s=in_time_per_s(shots, within_ms, began_s + EDGE_S, ended_s - EDGE_S),
        possible_per_s=min(rate, left * max(best_per_s, before)),
        recovered_s=recovered_s(shots, within_ms, before, ended_s, total_s),
    )


def table(rows: Sequence[Found]) -> str:
    head = ["disturbance", "asked/s", "in time before/s", "during/s", "possible/s", "share", "back to 0.95 after"]
    return grid(head, [_cells(row) for row in rows])


def _cells(row: Found) -> list[str]:
    back = "not" if row.recovered_s is None else f"{row.recovered_s:g} s"
    rates = (row.asked_per_s, row.before_per_s, row.during_per_s, row.possible_per_s)
    return [row.disturbance, *(f"{rate:,.0f}" for rate in rates), f"{row.of_possible:.2f}", back]
