"""Batch time as a function of rows, for one padded length: measured cells, pooled into a rising piecewise line.

Real batch times do not rise: kernels are chosen by size, and 13 rows can take half as long again as 16. Such a batch is
padded, so what it takes is the least of its own time and that of any larger size, which rises; noise is pooled away.
Between cells it interpolates, beyond them it follows a robust affine fit with a non-negative slope and intercept,
joined to the outermost cell. Times are in whatever unit they are given in; no drift and no margin here.
"""

from bisect import bisect_left, bisect_right, insort
from math import ceil, log

from serving.core.isotonic import isotonic

FULL_WEIGHT = 20.0  # a cell forgets at this rate: its mean is over about this many batches
SINGLE_CELL_FIXED_SHARE = 0.5  # with one size measured, half its time is taken to be fixed cost: larger ones get tried
WARM_AFTER = 3  # the first runs of a size may compile or page in: until then a much faster one replaces what was seen
MUCH_FASTER = 1.5
REFIT_AFTER = 16  # the fit moves slowly and is not cheap: it is renewed with a new cell, or after this many batches
PADDING_PAYS = 0.95  # a larger size must take no more than this share of the smaller one's time
KNOWN_WEIGHT = 2.0  # a size says whether to pad once it was seen so often: the first run of any may be slow
STALE_AFTER = 200  # batches of other sizes, after which what a size took is hearsay
PECULIAR = 1.5  # a size may be so much faster or slower than its neighbours for its kernel's sake
HUBER_LIMIT = 0.05  # relative residual beyond which a cell counts for less in the fit


def cell_key(rows: int) -> int:
    """Exact up to 32 rows, then coarser with size, so that memory stays bounded whatever sizes come.

    Eight bins per doubling, each ending at a multiple of its width as device tiles do; that last size, the likely one
    for a full batch or a rung of the warm-up, has a cell to itself: it often lies just before a step.
    """
    before = rows - 1
    octave = max(before.bit_length() - 4, 0)
    is_last = rows & ((1 << octave) - 1) == 0
    return 2 * (8 * octave + (before >> octave)) + is_last


class Cell:
    __slots__ = ("mean", "rows", "seen", "weight")

    def __init__(self, rows: float, mean: float, seen: int) -> None:
        self.rows = rows
        self.mean = mean
        self.weight = 1.0
        self.seen = seen  # how many batches the curve had taken in then


CellState = tuple[float, float, float] | None  # rows, mean, weight; None: there was no cell


class Curve:
    """at(rows) -> time and rows_within(time) -> rows, its inverse. Meaningless while `is_empty()`."""

    __slots__ = ("_cells", "_faster", "_fit", "_fit_age", "_fresh", "_keys", "_rises", "_taken", "knots", "times")

    def __init__(self) -> None:
        self._cells: dict[int, Cell] = {}
        self._keys: list[int] = []
        self._faster: dict[int, int] = {}  # by key of a size: the larger size to pad it to
        self._fresh = True  # `knots` and `times` are what pooling the cells would give
        self._rises = True  # pooling found nothing to pool
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
        """How many batches the cell of this size stands for; one at most where that is long ago."""
        cell = self._cells.get(cell_key(rows))
        if cell is None:
            return 0.0
        return cell.weight if self._taken - cell.seen <= STALE_AFTER else min(cell.weight, 1.0)

    def remember(self, rows: int) -> CellState:
        """The state of this size's cell, for `restore`."""
        cell = self._cells.get(cell_key(rows))
        return (cell.rows, cell.mean, cell.weight) if cell else None

    def restore(self, rows: int, state: CellState) -> None:
        """Unlearns what `add` did to this size's cell since then."""
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
        """Takes in one batch; a doubtful one moves its cell only little."""
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
        """How far this size's time lies outside what its neighbours allow, as a logarithm; 0 within.

        A larger batch takes longer, and longer per row never: so the neighbours' times, and those scaled to these rows,
        bound it from both sides, give or take what kernels differ by.
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
        """Multiplies what this size is taken to take."""
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
        """What batches of these sizes take if each is padded to a larger size wherever that is clearly faster."""
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
        """Where the means rise by themselves, and still do, pooling would change nothing but this cell's own entry."""
        times = self.times
        index = bisect_left(self._keys, key)
        if not self._rises or (index and times[index - 1] > cell.mean):
            return False
        if index + 1 < len(times) and times[index + 1] < cell.mean:
            return False
        self.knots[index], times[index] = cell.rows, cell.mean
        return True

    def fastest_rows(self, rows: int) -> int:
        """The size to compute a batch of so many rows at: a larger one where that was seen to be clearly faster."""
        if not self._fresh:
            self.pool()
        return self._faster.get(cell_key(rows), rows) if self._faster else rows

    def at(self, rows: float) -> float:
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
        """The most rows that take no longer than `time`; infinite where more rows cost nothing more."""
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
        """(fixed, per row): least squares on relative errors, outlying cells counting for less."""
        if self._fit is None or self._fit_age >= REFIT_AFTER:
            self.pool()
            self._fit = self._robust_fit()
            self._fit_age = 0
        return self._fit

    def _beyond(self, rows: float, edge: int) -> float:
        fixed, per_row = self.fit()
        # The quotient first: it is at least one where there are more rows, to the last bit.
        return self.times[edge] * ((fixed + per_row * rows) / (fixed + per_row * self.knots[edge]))

    def _robust_fit(self) -> tuple[float, float]:
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
    """Weighted least squares of y = fixed + per_row * x with neither below zero."""
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
