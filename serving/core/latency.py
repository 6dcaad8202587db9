"""Predicts how long a batch takes, learning online from each finished batch. Times are whole ns in the interface.

The model has three layers, from fast to slow:
- A drift factor common to all sizes. It follows changes of the device's speed (clocks, other users of the device).
- A curve of time over rows for each padded length (`core/curve.py`).
- Margins that make `plan_ns` and `bound_ns` hold for the wanted share of batches, whatever the distribution of the
  noise. They are multiples of the observed scatter and adapt by online conformal steps (stochastic gradient steps on
  the pinball loss).

The scatter is taken to be proportional to a batch's time up to the typical time, and constant beyond. Otherwise a stall
that small batches often meet would count tenfold for large ones, which would then never be cut.
"""

from bisect import bisect_left
from dataclasses import dataclass
from math import exp, log

from serving.core.curve import CellState, Curve

MATURE_WEIGHT = 3.0  # cells of this weight or more contribute to the drift
DRIFT_STEP = 0.1
TENSION_STEP = 0.1
FOLLOW_STEP = 0.9  # drift step after a change of speed: the error that drift leaves would stay in cells of low weight
FOLLOW_BATCHES = 8
SURPRISES_TO_FOLLOW = 3  # this many surprises in a row, all in the same direction, are a change of speed
SURPRISE = 3.0  # in units of scatter
OUTLIER = 3.0  # a batch beyond this many times its bound is set aside, unless the one before was set aside too
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
EXPLORE_EVERY = 32  # after each so many batches, one may have twice the rows of the knee and goes without extra padding
KNEE_CACHED_FOR = 16  # batches; the knee moves slowly, and finding it takes longer than the rest of a cut


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSnapshot:
    """A measured size: its mean time including drift, and the number of batches that it stands for (weight)."""

    length: int
    rows: float
    mean_ns: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySnapshot:
    """The state of a latency model.

    margin: by how much `bound_ns` exceeds `predict_ns` for a typical batch, as a share of the prediction.
    coverage: share of batches that took no longer than `bound_ns`.
    observed, set_aside: number of batches, and of those among them that were ignored as outliers.
    """

    cells: tuple[CellSnapshot, ...]
    drift: float
    margin: float
    coverage: float
    observed: int
    set_aside: int


@dataclass(frozen=True, slots=True)
class Surprise:
    """A batch whose time noise does not explain, and the state of its cell before it was added."""

    error: float
    curve: Curve
    rows: int
    before: CellState


class LatencyModel:
    """The latency model of one model on one replica.

    lengths: the padded lengths, ascending. quantile: the share of batches that should take no longer than `bound_ns`,
        at least 0.5 and below 1.
    """

    def __init__(self, *, lengths: tuple[int, ...] = (1,), quantile: float = 0.99) -> None:
        if not lengths or list(lengths) != sorted(set(lengths)):
            raise ValueError(f"lengths must be ascending and not empty: {lengths}")
        if not 0.5 <= quantile < 1.0:
            raise ValueError(f"quantile must be at least 0.5 and below 1: {quantile}")
        self.lengths = lengths
        self.quantile = quantile
        self._curves = [Curve() for _ in lengths]
        self._index = {length: index for index, length in enumerate(lengths)}
        # The (curve, factor) pairs of each length, of which the largest value counts. See `_sources_of`.
        self._sources: list[list[tuple[Curve, float]]] = [[] for _ in lengths]
        # Results of `_base` by index of the length and rows: one cut needs the same sizes many times.
        self._base_cache: list[dict[float, float]] = [{} for _ in lengths]
        self._knees: dict[tuple[int, int, float], int] = {}
        self._drift = 1.0
        self._scatter = FIRST_SCATTER
        self._scatter_weight = 3.0
        self._margin = FIRST_MARGIN
        self._calm_margin = FIRST_MARGIN  # the margin before the current run of surprises
        self._plan_margin = FIRST_PLAN_MARGIN
        self._typical = 0.0  # moving average of batch times, without drift
        self._surprises: list[Surprise] = []  # the current run of surprises, all in the same direction
        self._following = 0
        self._last_was_outlier = False
        self._observed = 0
        self._judged = 0
        self._covered = 0
        self._set_aside = 0

    def predict_ns(self, rows: int, length: int = 1) -> int:
        """Returns the expected time of one batch of padded `rows` x `length`; 0 before the first observation."""
        return int(self._base(rows, self._at(length)) * self._drift)

    def plan_ns(self, rows: int, length: int = 1) -> int:
        """Returns the time to plan with, which most batches (`PLAN_QUANTILE`) but not nearly all of them keep.

        It decides which requests are passed over because they would be late. A request passed over is certainly lost,
        so the margin of `bound_ns` would lose more requests than it saves; without any margin too many would be late.
        """
        return int(self._within(self._base(rows, self._at(length)), self._plan_margin))

    def bound_ns(self, rows: int, length: int = 1) -> int:
        """Returns the time that `quantile` of batches do not exceed."""
        return int(self._within(self._base(rows, self._at(length)), self._margin))

    def largest_feasible_rows(self, slack_ns: int, length: int, max_rows: int) -> int:
        """Returns the most rows, up to `max_rows`, whose `plan_ns` fits into the slack; 0 if not even one row fits.

        Inverts the curves by bisection, then steps down while rounding makes the plan exceed the slack.
        """
        if slack_ns < 0:
            return 0
        index = self._at(length)
        # One nanosecond more because `plan_ns` is rounded down.
        time = self._base_within((slack_ns + 1) / self._drift, self._plan_margin)
        rows = max_rows
        for curve, factor in self._sources[index]:
            within = curve.rows_within(time / factor)
            if within < rows:
                rows = int(within + 1e-9)
        while rows > 0 and int(self._within(self._base(rows, index), self._plan_margin)) > slack_ns:
            rows -= 1
        return max(rows, 0)

    def fastest_rows(self, rows: int, length: int, max_rows: int) -> int:
        """Returns the size to pad a batch of `rows` to: `rows`, or a clearly faster one between it and `max_rows`.

        After each `EXPLORE_EVERY` batches it returns `rows`, so that a size that once was slow is measured again.
        """
        if self._observed % EXPLORE_EVERY == 0:
            return rows
        fastest = self._curves[self._at(length)].fastest_rows(rows)
        return fastest if fastest <= max_rows else rows

    def best_rows(self, max_rows: int, length: int = 1, efficiency: float = 0.95) -> int:
        """Returns the knee: the smallest size that has `efficiency` of the best throughput. More rows only add latency.

        The candidates are the measured sizes, and beyond them extrapolated ones. After each `EXPLORE_EVERY` batches it
        returns twice the knee (at most `max_rows`), because a size that is never run would keep its old measurement.
        """
        key = (max_rows, length, efficiency)
        knee = self._knees.get(key)
        if knee is None:
            knee = self._knees[key] = self._knee(max_rows, self._at(length), efficiency)
        return min(2 * knee, max_rows) if self._observed % EXPLORE_EVERY == 0 else knee

    def throughput_rows_per_s(self, rows: int, length: int = 1) -> float:
        """Returns the rows per second of back-to-back batches of this size; 0 before the first observation."""
        time_ns = self._base(rows, self._at(length)) * self._drift
        return rows / time_ns * 1e9 if time_ns else 0.0

    def teach(self, rows: int, length: int, took_ns: int) -> None:
        """Learns from one batch of the warm-up, in which one size after the other is measured.

        Changes neither drift nor scatter. Each size is measured for the first time: the difference from its prediction
        is an error of the prediction, and taken for drift it would spoil the measurements before. And batches run back
        to back scatter less than batches in service.
        """
        index = self._at(length)
        curve = self._curves[index]
        time = max(took_ns, 1) / self._drift
        curve.add(rows, time)
        self._typical += (time - self._typical) * (TYPICAL_STEP if self._observed else 1.0)
        self._observed += 1
        self._renew_sources()
        self._knees.clear()

    def observe(self, rows: int, length: int, took_ns: int) -> None:
        """Learns from one finished batch.

        A batch beyond `OUTLIER` times its bound is set aside. If the next one is too, they are taken for a change of
        speed.
        """
        index = self._at(length)
        curve = self._curves[index]
        took = float(max(took_ns, 1))
        known = bool(self._sources[index])
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
        # After a change of speed the drift should take up the difference, for all sizes, and not this one cell.
        if self._following:
            self._following -= 1
        else:
            curve.add(rows, took / self._drift, doubtful=mature and bool(self._surprises))
            self._ease(curve, rows)
            for cache in self._base_cache:  # longer lengths use the curve, and shorter ones without measurements
                cache.clear()
            if not known or weight == 0.0:
                self._renew_sources()
                self._knees.clear()
        if self._observed % KNEE_CACHED_FOR == 0 or self._following:
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
        """Returns the index of the smallest padded length not below `length`, or of the largest one."""
        index = self._index.get(length)
        if index is None:
            index = min(bisect_left(self.lengths, length), len(self.lengths) - 1)
        return index

    def _base(self, rows: int, index: int) -> float:
        """Returns the expected time without drift: the maximum over the sources, so it never falls with the length."""
        cache = self._base_cache[index]
        base = cache.get(rows)
        if base is None:
            sources = self._sources[index]
            if not sources:
                return 0.0
            curve, factor = sources[-1]
            base = curve.at(rows) * factor
            if len(sources) > 1:  # the other sources are those of the next shorter length
                base = max(base, self._base(rows, index - 1))
            cache[rows] = base
        return base

    def _renew_sources(self) -> None:
        """Finds the sources of all lengths again, after a curve was filled or changed."""
        for cache in self._base_cache:
            cache.clear()
        self._sources = [self._sources_of(index) for index in range(len(self.lengths))]

    def _sources_of(self, index: int) -> list[tuple[Curve, float]]:
        """Returns the curves that predict this length, each with a factor: its own and those of all shorter lengths.

        A length without measurements uses the next shorter curve, scaled by the ratio of the lengths unless a longer
        one is measured too. If no shorter length is measured, it uses the next longer curve unscaled.
        """
        seen = [i for i, curve in enumerate(self._curves) if not curve.is_empty()]
        shorter = [i for i in seen if i <= index]
        if not shorter:
            return [(self._curves[seen[0]], 1.0)] if seen else []
        sources = [(self._curves[i], 1.0) for i in shorter]
        longer = [i for i in seen if i > index]
        if shorter[-1] != index and not longer:
            sources[-1] = (self._curves[shorter[-1]], self.lengths[index] / self.lengths[shorter[-1]])
        return sources

    def _knee(self, max_rows: int, index: int, efficiency: float) -> int:
        sources = self._sources[index]
        if not sources:
            return max_rows
        curve = sources[-1][0]
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
        """Returns the expected time `base` (without drift) plus `margin` times the scatter, all times the drift."""
        return (base + margin * self._scatter * min(base, self._typical)) * self._drift

    def _base_within(self, time: float, margin: float) -> float:
        """Returns the inverse of `_within` for a time from which drift is removed."""
        share = margin * self._scatter
        return max(time / (1.0 + share), time - share * self._typical)

    def _judge(self, took: float, bound: float, unit: float) -> None:
        """Adapts the margin of `bound_ns` by a conformal step, so that `quantile` of batches stay within the bound.

        A miss widens the margin by step * quantile, a hit narrows it by step * (1 - quantile): the two balance when
        `quantile` of batches hit. unit: the time of one unit of margin for this batch, in ns.
        """
        missed = took > bound
        self._judged += 1
        self._covered += not missed
        if self._following:
            return
        step = MARGIN_STEP * max(1.0, self._margin / 10.0)
        if missed:
            # A miss by very much indicates a long tail: widen by at least a tenth of the excess at once.
            self._margin += max(step * self.quantile, 0.1 * (took - bound) / unit)
        else:
            self._margin = max(LEAST_MARGIN, self._margin - step * (1.0 - self.quantile))

    def _judge_plan(self, missed: bool) -> None:
        """Adapts the margin of `plan_ns` by a conformal step for `PLAN_QUANTILE`."""
        if not self._following:
            step = PLAN_STEP * max(1.0, self._plan_margin / 10.0)
            self._plan_margin = max(0.0, self._plan_margin + step * (PLAN_QUANTILE - 1.0 + missed))

    def _relearn(self, error: float) -> None:
        """Begins to follow a change of speed after two outliers in a row."""
        self._following = FOLLOW_BATCHES
        self._scatter = max(self._scatter, 0.25 * abs(error))
        self._margin = self._calm_margin
        self._surprises.clear()

    def _suspect(self, error: float, curve: Curve, rows: int, *, mature: bool) -> None:
        """Detects a change of speed: a run of surprises in one direction, from mature sizes or from different sizes.

        A size of low weight that surprises repeatedly counts once: its own measurement may be wrong. When a change is
        detected, the cells are reset to their state before the run, and the drift follows with large steps.

        error: logarithm of the measured over the expected time.
        """
        if abs(error) <= SURPRISE * self._scatter:
            self._surprises.clear()
            self._calm_margin = self._margin
            return
        if self._surprises and (self._surprises[0].error > 0) != (error > 0):
            self._surprises.clear()
        if mature or all(past.curve is not curve or past.rows != rows for past in self._surprises):
            self._surprises.append(Surprise(error, curve, rows, curve.remember(rows)))
        if len(self._surprises) >= SURPRISES_TO_FOLLOW and not self._following:
            self._following = FOLLOW_BATCHES
            self._margin = self._calm_margin  # a change of speed is not noise, so the margin must not adapt to it
            for surprise in reversed(self._surprises):
                surprise.curve.restore(surprise.rows, surprise.before)
            self._surprises.clear()
            self._renew_sources()

    def _ease(self, curve: Curve, rows: int) -> None:
        """Moves part of a size's contradiction with its neighbours (`Curve.tension`) from its cell to the drift.

        While only one size runs, only the product of drift and its time is known. If the device's speed has changed
        since then, the other sizes would keep wrong times, which could prevent them from ever being tried.
        """
        tension = curve.tension(rows)
        if tension:
            share = exp(max(TENSION_STEP, 1.0 / (1.0 + curve.weight_at(rows))) * tension)
            self._drift *= share
            curve.scale(rows, 1.0 / share)
            self._knees.clear()

    def _learn(self, error: float, *, mature: bool) -> None:
        """Updates scatter and drift. error: logarithm of the measured over the expected time."""
        self._scatter_weight = min(self._scatter_weight + 1.0, 1.0 / SCATTER_STEP)
        # 1.25 times the mean absolute error estimates the standard deviation of normal noise. The cap keeps a single
        # extreme batch from widening every bound.
        seen = min(1.25 * abs(error), 4.0 * self._scatter)
        self._scatter = max(LEAST_SCATTER, self._scatter + (seen - self._scatter) / self._scatter_weight)
        if mature or self._following:
            self._drift *= exp((FOLLOW_STEP if self._following else DRIFT_STEP) * error)
