"""How long will a batch take? Learned from every finished batch, in whole nanoseconds at the border.

Three layers, fast to slow: a global drift factor (clocks, co-tenants: any size tells about all sizes), one curve over
rows per padded length, and margins that make `plan_ns` and `bound_ns` hold for the wanted shares of batches whatever
the noise is distributed like (online conformal steps on multiples of the observed scatter). Scatter is in proportion
to the batch's time up to what is typical, and no more beyond: a stall that small batches often meet would else count
tenfold for large ones, which are then never cut.
"""

from bisect import bisect_left
from dataclasses import dataclass
from math import exp, log

from serving.core.curve import CellState, Curve

MATURE_WEIGHT = 3.0  # a cell speaks about drift once it stands for this many batches
DRIFT_STEP = 0.1
GAUGE_STEP = 0.1
FOLLOW_STEP = 0.9  # while the law is plainly changing: what drift leaves over, cells hardly known keep wrong
FOLLOW_BATCHES = 8
SURPRISES_TO_FOLLOW = 3  # this many batches in a row, all off to the same side by more than noise explains
SURPRISE = 3.0  # in units of scatter
OUTLIER = 3.0  # beyond this many times the bound a batch says nothing about the next, unless it happens twice running
SCATTER_STEP = 0.05
FIRST_SCATTER = 0.05
LEAST_SCATTER = 0.001
MARGIN_STEP = 0.5  # in units of scatter, for one miss
FIRST_MARGIN = 3.0
LEAST_MARGIN = 0.5
PLAN_QUANTILE = 0.88
PLAN_STEP = 0.2
FIRST_PLAN_MARGIN = 1.4
TYPICAL_STEP = 0.05
VENTURE_EVERY = 32  # batches, of which one may be twice as large as seems to pay, and another goes without padding
KNEES_LAST = 16  # batches for which a knee stands: it moves slowly, and finding it takes longer than the rest of a cut


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSnapshot:
    length: int
    rows: float
    mean_ns: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySnapshot:
    """margin: by how much `bound_ns` exceeds `predict_ns` for a typical batch, as a share of it.
    coverage: share of batches in bound."""

    cells: tuple[CellSnapshot, ...]
    drift: float
    margin: float
    coverage: float
    observed: int
    set_aside: int


@dataclass(frozen=True, slots=True)
class Surprise:
    """A batch that noise does not explain, and the state of its cell before it."""

    error: float
    curve: Curve
    rows: int
    before: CellState


class LatencyModel:
    """lengths: the padded lengths, ascending. quantile: the share of batches that should stay within `bound_ns`."""

    def __init__(self, *, lengths: tuple[int, ...] = (1,), quantile: float = 0.99) -> None:
        if not lengths or list(lengths) != sorted(set(lengths)):
            raise ValueError(f"lengths must be ascending and not empty: {lengths}")
        if not 0.5 <= quantile < 1.0:
            raise ValueError(f"quantile must be at least 0.5 and below 1: {quantile}")
        self.lengths = lengths
        self.quantile = quantile
        self._curves = [Curve() for _ in lengths]
        self._index = {length: index for index, length in enumerate(lengths)}
        # What speaks for each length: (curve, factor) pairs, the largest value counts. See `_speakers`.
        self._speaking: list[list[tuple[Curve, float]]] = [[] for _ in lengths]
        # What `_base` found, by index and rows: one cut asks for the same sizes again and again.
        self._found: list[dict[float, float]] = [{} for _ in lengths]
        self._knees: dict[tuple[int, int, float], int] = {}
        self._drift = 1.0
        self._scatter = FIRST_SCATTER
        self._scatter_weight = 3.0
        self._margin = FIRST_MARGIN
        self._calm_margin = FIRST_MARGIN  # what it was before the present run of surprises
        self._plan_margin = FIRST_PLAN_MARGIN
        self._typical = 0.0  # time of the batches that are run, without drift
        self._surprises: list[Surprise] = []  # the present run of them, all to the same side
        self._following = 0
        self._last_was_outlier = False
        self._observed = 0
        self._judged = 0
        self._covered = 0
        self._set_aside = 0

    def predict_ns(self, rows: int, length: int = 1) -> int:
        """The expected time of one batch of padded `rows` x `length`; 0 before anything was observed."""
        return int(self._base(rows, self._at(length)) * self._drift)

    def plan_ns(self, rows: int, length: int = 1) -> int:
        """What to reckon with where a request may be late or given up: right for most batches, not for nearly all.

        Whoever is left behind for fear of being late is lost for certain, so the margin of a promise gives up more
        than it saves; none at all would make too many late.
        """
        return int(self._within(self._base(rows, self._at(length)), self._plan_margin))

    def bound_ns(self, rows: int, length: int = 1) -> int:
        """What one batch stays within, `quantile` of the time."""
        return int(self._within(self._base(rows, self._at(length)), self._margin))

    def largest_feasible_rows(self, slack_ns: int, length: int, max_rows: int) -> int:
        """The most rows, up to `max_rows`, whose `plan_ns` fits into the slack; 0 if not even one does."""
        if slack_ns < 0:
            return 0
        index = self._at(length)
        # One nanosecond more: times are rounded down to whole ones.
        time = self._base_within((slack_ns + 1) / self._drift, self._plan_margin)
        rows = max_rows
        for curve, factor in self._speaking[index]:
            within = curve.rows_within(time / factor)
            if within < rows:
                rows = int(within + 1e-9)
        while rows > 0 and int(self._within(self._base(rows, index), self._plan_margin)) > slack_ns:
            rows -= 1
        return max(rows, 0)

    def fastest_rows(self, rows: int, length: int, max_rows: int) -> int:
        """The size to pad a batch of `rows` to, `max_rows` at most: `rows` unless a larger one is clearly faster."""
        if self._observed % VENTURE_EVERY == 0:
            return rows
        fastest = self._curves[self._at(length)].fastest_rows(rows)
        return fastest if fastest <= max_rows else rows

    def best_rows(self, max_rows: int, length: int = 1, efficiency: float = 0.95) -> int:
        """The knee: the smallest size measured (or extrapolated, beyond those) that has `efficiency` of the best
        throughput. More rows than that only add latency. Now and then twice that: a size that is never run would be
        taken for ever to be as slow as it once was.
        """
        key = (max_rows, length, efficiency)
        knee = self._knees.get(key)
        if knee is None:
            knee = self._knees[key] = self._knee(max_rows, self._at(length), efficiency)
        return min(2 * knee, max_rows) if self._observed % VENTURE_EVERY == 0 else knee

    def throughput_rows_per_s(self, rows: int, length: int = 1) -> float:
        """Rows per second of back-to-back batches of this size; 0 before anything was observed."""
        time_ns = self._base(rows, self._at(length)) * self._drift
        return rows / time_ns * 1e9 if time_ns else 0.0

    def teach(self, rows: int, length: int, took_ns: int) -> None:
        """Takes in one batch that was measured before service, size after size.

        Each size is news then and says nothing about the others: taken for drift, the difference between what it takes
        and what was guessed for it would spoil all that was measured before it. Nor of how much batches scatter: back
        to back, they do so less than in service.
        """
        index = self._at(length)
        curve = self._curves[index]
        time = max(took_ns, 1) / self._drift
        curve.add(rows, time)
        self._typical += (time - self._typical) * (TYPICAL_STEP if self._observed else 1.0)
        self._observed += 1
        self._list_speakers()
        self._knees.clear()

    def observe(self, rows: int, length: int, took_ns: int) -> None:
        """Learns from one finished batch. A single absurdly slow one is set aside; two in a row are the new law."""
        index = self._at(length)
        curve = self._curves[index]
        took = float(max(took_ns, 1))
        known = bool(self._speaking[index])
        self._observed += 1
        weight = curve.weight_at(rows)
        mature = weight >= MATURE_WEIGHT
        if known:
            base = self._base(rows, index)
            expected, bound = base * self._drift, self._within(base, self._margin)
            is_outlier = took > OUTLIER * bound
            if is_outlier and not self._last_was_outlier:
                self._last_was_outlier = True
                self._set_aside += 1
                return
            self._judge(took, bound, self._scatter * min(base, self._typical) * self._drift)
            self._judge_plan(took > self._within(base, self._plan_margin))
            self._typical += (base - self._typical) * TYPICAL_STEP
            error = log(took / expected)
            if is_outlier:
                self._relearn(error)
            else:
                self._suspect(error, curve, rows, mature=mature)
            self._learn(error, mature=mature)
            self._last_was_outlier = False
        else:
            self._typical = took / self._drift
        # While the law is changing, drift should take it up, for all sizes, and not this one cell.
        if self._following:
            self._following -= 1
        else:
            curve.add(rows, took / self._drift, doubtful=mature and bool(self._surprises))
            self._ease(curve, rows)
            for found in self._found[index:]:  # a length listens to itself and to shorter ones
                found.clear()
            if not known or weight == 0.0:
                self._list_speakers()
                self._knees.clear()
        if self._observed % KNEES_LAST == 0 or self._following:
            self._knees.clear()

    def snapshot(self) -> LatencySnapshot:
        cells = [
            CellSnapshot(length=length, rows=cell.rows, mean_ns=int(cell.mean * self._drift), weight=cell.weight)
            for length, curve in zip(self.lengths, self._curves, strict=True)
            for cell in curve.cells()
        ]
        return LatencySnapshot(
            cells=tuple(cells),
            drift=self._drift,
            margin=self._margin * self._scatter,
            coverage=self._covered / self._judged if self._judged else 1.0,
            observed=self._observed,
            set_aside=self._set_aside,
        )

    def _at(self, length: int) -> int:
        index = self._index.get(length)
        if index is None:
            index = min(bisect_left(self.lengths, length), len(self.lengths) - 1)
        return index

    def _base(self, rows: int, index: int) -> float:
        """The expected time without drift. The longest of what speaks for this length, so that it never falls."""
        found = self._found[index]
        base = found.get(rows)
        if base is None:
            speaking = self._speaking[index]
            if not speaking:
                return 0.0
            curve, factor = speaking[-1]
            base = curve.at(rows) * factor
            if len(speaking) > 1:  # the others speak for the next shorter length
                base = max(base, self._base(rows, index - 1))
            found[rows] = base
        return base

    def _list_speakers(self) -> None:
        for found in self._found:
            found.clear()
        self._speaking = [self._speakers(index) for index in range(len(self.lengths))]

    def _speakers(self, index: int) -> list[tuple[Curve, float]]:
        """The curves of this and all shorter lengths. A length never seen borrows: in proportion from the next
        shorter, or as it stands from the next longer one if no shorter was seen.
        """
        seen = [i for i, curve in enumerate(self._curves) if not curve.is_empty()]
        shorter = [i for i in seen if i <= index]
        if not shorter:
            return [(self._curves[seen[0]], 1.0)] if seen else []
        speaking = [(self._curves[i], 1.0) for i in shorter]
        longer = [i for i in seen if i > index]
        if shorter[-1] != index and not longer:
            speaking[-1] = (self._curves[shorter[-1]], self.lengths[index] / self.lengths[shorter[-1]])
        return speaking

    def _knee(self, max_rows: int, index: int, efficiency: float) -> int:
        speaking = self._speaking[index]
        if not speaking:
            return max_rows
        curve = speaking[-1][0]
        curve.pool()
        sizes = [size for size in {round(knot) for knot in curve.knots} if size < max_rows]
        beyond = 2 * round(curve.knots[-1])
        while beyond < max_rows:
            sizes.append(beyond)
            beyond *= 2
        sizes.append(max_rows)
        sizes.sort()
        throughputs = [size / self._base(size, index) for size in sizes]
        wanted = efficiency * max(throughputs)
        return next(size for size, throughput in zip(sizes, throughputs, strict=True) if throughput >= wanted)

    def _within(self, base: float, margin: float) -> float:
        return (base + margin * self._scatter * min(base, self._typical)) * self._drift

    def _base_within(self, time: float, margin: float) -> float:
        """The other way round, without drift."""
        share = margin * self._scatter
        return max(time / (1.0 + share), time - share * self._typical)

    def _judge(self, took: float, bound: float, unit: float) -> None:
        """The conformal step: a miss widens the margin by much, a hit narrows it by little, in the odds of both."""
        missed = took > bound
        self._judged += 1
        self._covered += not missed
        if self._following:
            return
        step = MARGIN_STEP * max(1.0, self._margin / 10.0)
        if missed:
            # A miss by very much tells of a long tail: go a tenth of the way at once.
            self._margin += max(step * self.quantile, 0.1 * (took - bound) / unit)
        else:
            self._margin = max(LEAST_MARGIN, self._margin - step * (1.0 - self.quantile))

    def _judge_plan(self, missed: bool) -> None:
        if not self._following:
            step = PLAN_STEP * max(1.0, self._plan_margin / 10.0)
            self._plan_margin = max(0.0, self._plan_margin + step * (PLAN_QUANTILE - 1.0 + missed))

    def _relearn(self, error: float) -> None:
        self._following = FOLLOW_BATCHES
        self._scatter = max(self._scatter, 0.25 * abs(error))
        self._margin = self._calm_margin
        self._surprises.clear()

    def _suspect(self, error: float, curve: Curve, rows: int, *, mature: bool) -> None:
        """Is the law changing? Batches of settled sizes, or of several different ones, off to one side in a row say so.

        A size hardly known that keeps surprising says something about itself only.
        """
        if abs(error) <= SURPRISE * self._scatter:
            self._surprises.clear()
            self._calm_margin = self._margin
            return
        if self._surprises and (self._surprises[0].error > 0) != (error > 0):
            self._surprises.clear()
        if mature or all(one.curve is not curve or one.rows != rows for one in self._surprises):
            self._surprises.append(Surprise(error, curve, rows, curve.remember(rows)))
        if len(self._surprises) >= SURPRISES_TO_FOLLOW and not self._following:
            self._following = FOLLOW_BATCHES
            self._margin = self._calm_margin  # a change of the law is not noise: nothing for the margin to learn
            for one in reversed(self._surprises):
                one.curve.restore(one.rows, one.before)
            self._surprises.clear()
            self._list_speakers()

    def _ease(self, curve: Curve, rows: int) -> None:
        """A size that cannot be so much faster or slower than its neighbours tells about drift, not about itself.

        Drift and one size's time are known only as a product where a single size runs; what that size was first seen
        with, in a changed machine, would else stay a wrong belief about all the others, and keep them from being tried.
        """
        tension = curve.tension(rows)
        if tension:
            share = exp(max(GAUGE_STEP, 1.0 / (1.0 + curve.weight_at(rows))) * tension)
            self._drift *= share
            curve.scale(rows, 1.0 / share)
            self._knees.clear()

    def _learn(self, error: float, *, mature: bool) -> None:
        """Scatter and drift. `error` is the logarithm of taken over expected."""
        self._scatter_weight = min(self._scatter_weight + 1.0, 1.0 / SCATTER_STEP)
        # 1.25 times the mean absolute error is the standard deviation of normal noise; capped, so that one wild batch
        # does not widen every bound.
        seen = min(1.25 * abs(error), 4.0 * self._scatter)
        self._scatter = max(LEAST_SCATTER, self._scatter + (seen - self._scatter) / self._scatter_weight)
        if mature or self._following:
            self._drift *= exp((FOLLOW_STEP if self._following else DRIFT_STEP) * error)
