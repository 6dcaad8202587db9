"""Batch time as a function of rows, for one padded length: a non-decreasing, piecewise linear curve.

Measured batch times do not always rise with rows: kernels are chosen by size, and 13 rows can take half as long again
as 16. Such a batch is padded to the larger size. The time of a size is therefore the minimum of its own time and that
of any larger size, which is non-decreasing by construction; isotonic regression removes the noise that remains.
Between measured sizes the curve interpolates linearly. Outside them it follows an affine fit with non-negative slope
and intercept (weighted least squares with Huber weights), scaled to meet the outermost measurement.

Measurements of similar sizes share a cell (see `cell_key`), so memory is bounded. Each cell holds a moving average.
Times have the unit in which they are added. Drift and margins are not part of the curve (see `core/latency.py`).
"""

from bisect import bisect_left, bisect_right, insort
from math import ceil, log

from serving.core.isotonic import isotonic

FULL_WEIGHT = 20.0  # the effective number of batches that a cell's moving average covers
SINGLE_CELL_FIXED_SHARE = 0.5  # with one size measured, half its time is taken as fixed cost: larger ones are tried
WARM_AFTER = 3  # the first runs of a size may compile or page in: up to this weight a much faster run replaces the mean
MUCH_FASTER = 1.5
REFIT_AFTER = 16  # the fit moves slowly and is costly: it is renewed after this many batches, or with a new cell
PADDING_PAYS = 0.95  # padding pays if the larger size takes less than this share of the smaller one's time
KNOWN_WEIGHT = 2.0  # only sizes of this weight decide about padding, because the first run of a size may be slow
STALE_AFTER = 200  # batches of other sizes after which a measurement counts as stale
PECULIAR = 1.5  # factor by which a size may differ from its neighbours because of its kernel
HUBER_LIMIT = 0.05  # relative residual beyond which a cell is weighted down in the fit


def cell_key(rows: int) -> int:
    """Returns the key of the cell of this size: one cell per size up to 32 rows, then coarser, so memory is bounded.

    Each doubling of rows has eight bins. A bin ends at a multiple of its width, as device tiles do. The last size of a
    bin has a cell of its own, because full batches and warm-up sizes tend to be such multiples, and the time per batch
    often jumps right after them.
    """
    before = rows - 1
    octave = max(before.bit_length() - 4, 0)
    is_last = rows & ((1 << octave) - 1) == 0
    return 2 * (8 * octave + (before >> octave)) + is_last


class Cell:
    """The moving averages of rows and time over batches of similar size; weight: how many batches they stand for."""

    __slots__ = ("mean", "rows", "seen", "weight")

    def __init__(self, rows: float, mean: float, seen: int) -> None:
        self.rows = rows
        self.mean = mean
        self.weight = 1.0
        self.seen = seen  # how many batches had been added to the curve at this cell's last measurement


CellState = tuple[float, float, float] | None  # rows, mean, weight; None: there was no cell


class Curve:
    """The curve `at(rows) -> time` and its inverse `rows_within(time) -> rows`. Undefined while `is_empty()`.

    Invariant: `knots` (rows) increase and `times` do not decrease. Adding a batch is O(log n) for n cells, or O(n) at
    the next evaluation if the cells have to be pooled again. An evaluation is a bisection, O(log n).
    """

    __slots__ = ("_cells", "_faster", "_fit", "_fit_age", "_fresh", "_keys", "_rises", "_taken", "knots", "times")

    def __init__(self) -> None:
        self._cells: dict[int, Cell] = {}
        self._keys: list[int] = []
        self._faster: dict[int, int] = {}  # by cell key: the larger size to pad to
        self._fresh = True  # `knots` and `times` are up to date with the cells
        self._rises = True  # the means were non-decreasing at the last pooling: nothing was pooled
        self._fit: tuple[float, float] | None = None
        self._fit_age = 0
        self._taken = 0
        self.knots: list[float] = []
        self.times: list[float] = []

    def is_empty(self) -> bool:
        return not self._cells

    def cells(self) -> list[Cell]:
        return [self._cells[key] for key in self._keys]

    def weight_at(self, rows: int) -> float:
        """Returns how many batches the cell of this size stands for; at most one if its measurements are stale."""
        cell = self._cells.get(cell_key(rows))
        if cell is None:
            return 0.0
        return cell.weight if self._taken - cell.seen <= STALE_AFTER else min(cell.weight, 1.0)

    def remember(self, rows: int) -> CellState:
        """Returns the state of this size's cell, for `restore`; None without a cell."""
        cell = self._cells.get(cell_key(rows))
        return (cell.rows, cell.mean, cell.weight) if cell else None

    def restore(self, rows: int, state: CellState) -> None:
        """Resets this size's cell to a state returned by `remember`. The last cell of a curve is never removed."""
        self._fresh, self._fit = False, None
        key = cell_key(rows)
        cell = self._cells.get(key)
        if cell is None:
            return
        if state is not None:
            cell.rows, cell.mean, cell.weight = state
        elif len(self._cells) > 1:
            del self._cells[key]
            self._keys.remove(key)

    def add(self, rows: int, time: float, *, doubtful: bool = False) -> None:
        """Adds the measurement of one batch. A doubtful one moves the average of its cell with the smallest step."""
        self._fit_age += 1
        self._taken += 1
        key = cell_key(rows)
        cell = self._cells.get(key)
        if cell is None:
            self._cells[key] = Cell(float(rows), time, self._taken)
            insort(self._keys, key)
            self._fresh, self._fit = False, None
            return
        cell.weight = self.weight_at(rows)
        cell.seen = self._taken
        if cell.weight < WARM_AFTER and cell.mean > MUCH_FASTER * time:
            cell.rows, cell.mean, cell.weight = float(rows), time, 1.0
        else:
            cell.weight = min(cell.weight + 1.0, FULL_WEIGHT)
            share = 1.0 / (FULL_WEIGHT if doubtful else cell.weight)
            cell.rows += share * (rows - cell.rows)
            cell.mean += share * (time - cell.mean)
        self._fresh = self._fresh and self._renew_in_place(key, cell)

    def tension(self, rows: int) -> float:
        """Returns how far this size's time lies outside the bounds set by its neighbours, as a logarithm; 0 within.

        A larger batch takes no less time in total and no more time per row. So the neighbours' times, and these scaled
        to this number of rows, bound the time from both sides, with a tolerance of `PECULIAR` for different kernels.
        """
        key = cell_key(rows)
        index = bisect_left(self._keys, key)
        cell = self._cells[key]
        least, most = 0.0, float("inf")
        if index:
            smaller = self._cells[self._keys[index - 1]]
            least, most = smaller.mean, smaller.mean * cell.rows / smaller.rows
        if index + 1 < len(self._keys):
            larger = self._cells[self._keys[index + 1]]
            least, most = max(least, larger.mean * cell.rows / larger.rows), min(most, larger.mean)
        if cell.mean * PECULIAR < least:
            return log(cell.mean * PECULIAR / least)
        if cell.mean > most * PECULIAR:
            return log(cell.mean / (most * PECULIAR))
        return 0.0

    def scale(self, rows: int, factor: float) -> None:
        """Multiplies the mean time of this size's cell by `factor`."""
        key = cell_key(rows)
        cell = self._cells[key]
        cell.mean *= factor
        self._fresh = self._fresh and self._renew_in_place(key, cell)

    def pool(self) -> None:
        """Brings `knots` and `times` up to date with the cells."""
        if self._fresh:
            return
        cells = self.cells()
        means = [cell.mean for cell in cells]
        self.knots = [cell.rows for cell in cells]
        self.times = isotonic(self._padded_means(cells), [cell.weight for cell in cells])
        self._rises = self.times == means
        self._fresh = True

    def _padded_means(self, cells: list[Cell]) -> list[float]:
        """Returns the mean time of each cell if batches are padded to a larger size wherever that is clearly faster.

        This is a running minimum from the largest size down. Also renews `_faster`. The cells are in order of size.
        """
        means: list[float] = []
        self._faster.clear()
        least, least_rows = float("inf"), 0
        for key, cell in zip(reversed(self._keys), reversed(cells), strict=True):
            known = cell.weight >= KNOWN_WEIGHT
            if known and least < PADDING_PAYS * cell.mean:
                self._faster[key] = least_rows
                means.append(least)
                continue
            means.append(cell.mean)
            if known and cell.mean < least:
                least, least_rows = cell.mean, ceil(cell.rows)
        means.reverse()
        return means

    def _renew_in_place(self, key: int, cell: Cell) -> bool:
        """Updates only this cell's entry if the means were and remain non-decreasing; returns False if not.

        Pooling would then change no other entry. This saves the O(n) pass after nearly every batch.
        """
        times = self.times
        index = bisect_left(self._keys, key)
        if not self._rises or (index and times[index - 1] > cell.mean):
            return False
        if index + 1 < len(times) and times[index + 1] < cell.mean:
            return False
        self.knots[index], times[index] = cell.rows, cell.mean
        return True

    def fastest_rows(self, rows: int) -> int:
        """Returns the size to pad a batch of `rows` to: a larger one if it was measured to be clearly faster."""
        if not self._fresh:
            self.pool()
        return self._faster.get(cell_key(rows), rows) if self._faster else rows

    def at(self, rows: float) -> float:
        """Returns the time of a batch of `rows`: interpolated between cells, extrapolated outside them."""
        if not self._fresh:
            self.pool()
        knots = self.knots
        index = bisect_left(knots, rows)
        if index == len(knots):
            return self._beyond(rows, -1)
        if knots[index] == rows:
            return self.times[index]
        if index == 0:
            return self._beyond(rows, 0)
        before, low = knots[index - 1], self.times[index - 1]
        return low + (self.times[index] - low) * (rows - before) / (knots[index] - before)

    def rows_within(self, time: float) -> float:
        """Returns the most rows that take no longer than `time`; infinite if additional rows take no more time."""
        if not self._fresh:
            self.pool()
        times = self.times
        index = bisect_right(times, time)
        if index == len(times) or index == 0:
            edge = -1 if index else 0
            fixed, per_row = self.fit()
            if per_row <= 0.0:
                return float("inf") if index else 0.0
            return ((fixed + per_row * self.knots[edge]) * time / times[edge] - fixed) / per_row
        low, before = times[index - 1], self.knots[index - 1]
        return before + (self.knots[index] - before) * (time - low) / (times[index] - low)

    def fit(self) -> tuple[float, float]:
        """Returns (fixed time, time per row), fitted by least squares on relative errors with Huber weights."""
        if self._fit is None or self._fit_age >= REFIT_AFTER:
            self.pool()
            self._fit = self._robust_fit()
            self._fit_age = 0
        return self._fit

    def _beyond(self, rows: float, edge: int) -> float:
        """Extrapolates from the cell at index `edge` (0 or -1) in proportion to the affine fit."""
        fixed, per_row = self.fit()
        # Compute the quotient first: it is at least 1 for more rows even after rounding, so the curve never falls.
        return self.times[edge] * ((fixed + per_row * rows) / (fixed + per_row * self.knots[edge]))

    def _robust_fit(self) -> tuple[float, float]:
        """Fits by least squares, then once more with Huber weights from the residuals if one exceeds the limit."""
        knots, times = self.knots, self.times
        if len(knots) == 1:
            fixed = SINGLE_CELL_FIXED_SHARE * times[0]
            return fixed, (times[0] - fixed) / knots[0]
        weights = [cell.weight / (cell.mean * cell.mean) for cell in self.cells()]
        fixed, per_row = _affine(knots, times, weights)
        residuals = [abs(fixed + per_row * x - t) / t for x, t in zip(knots, times, strict=True)]
        if max(residuals) > HUBER_LIMIT:
            weights = [w * min(1.0, HUBER_LIMIT / (r + 1e-12)) for w, r in zip(weights, residuals, strict=True)]
            fixed, per_row = _affine(knots, times, weights)
        return fixed, per_row


def _affine(xs: list[float], ys: list[float], weights: list[float]) -> tuple[float, float]:
    """Returns the weighted least-squares fit (fixed, per_row) of y = fixed + per_row * x, both non-negative."""
    mass = sum(weights)
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / mass
    mean_y = sum(w * y for w, y in zip(weights, ys, strict=True)) / mass
    spread = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs, strict=True))
    slope = sum(w * (x - mean_x) * (y - mean_y) for w, x, y in zip(weights, xs, ys, strict=True)) / spread
    slope = max(slope, 0.0)
    if mean_y >= slope * mean_x:
        return mean_y - slope * mean_x, slope
    through = sum(w * x * y for w, x, y in zip(weights, xs, ys, strict=True))
    return 0.0, through / sum(w * x * x for w, x in zip(weights, xs, strict=True))
