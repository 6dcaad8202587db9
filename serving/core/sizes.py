"""The shapes that a batch may have, and its largest size."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from serving.core.latency import LatencyModel

LARGEST_ROWS = 128  # computed at once, where the model's owner sets no bound
USEFUL_SHARE = 0.97  # of the best throughput: beyond the smallest batch that reaches it, rows only add latency


@dataclass(slots=True, kw_only=True)
class Sizes:
    """The possible shapes of a model's batches.

    largest_rows: the most rows the model computes at once; halved when the device runs out of memory.
    lengths: the padded lengths, ascending; (1,) if nothing is padded.
    row_ladder: the padded row counts, ascending, if shapes are compiled ahead; None if any count is possible.
    alike: whether all rows of one padded length have the same size. If not, the duration of one batch does not predict
    another's, and a large row must not be padded with more of its kind.
    """

    largest_rows: int
    lengths: tuple[int, ...] = (1,)
    row_ladder: tuple[int, ...] | None = None
    alike: bool = True

    def padded_length(self, length: int) -> int:
        """Returns the smallest padded length not below `length`; `length` itself if all are shorter."""
        if length == self.lengths[0]:
            return length
        index = bisect_left(self.lengths, length)
        return self.lengths[index] if index < len(self.lengths) else length

    def padded_rows(self, rows: int) -> int:
        """Returns the smallest possible row count not below `rows`; `rows` itself if all are smaller."""
        if self.row_ladder is None:
            return rows
        index = bisect_left(self.row_ladder, rows)
        return self.row_ladder[index] if index < len(self.row_ladder) else rows

    def fastest_rows(self, rows: int, latency: LatencyModel, length: int) -> int:
        """Returns the row count to pad a batch of `rows` to; more than necessary if a larger size is clearly faster."""
        padded_rows = self.padded_rows(rows)
        if self.row_ladder or not self.alike:
            return padded_rows
        return latency.fastest_rows(padded_rows, length, self.largest_rows)

    def computable_rows(self, rows: int) -> int:
        """Returns the largest batch that is, padded, no larger than `rows`; at least the smallest padded size."""
        if self.row_ladder is None or rows <= 0:
            return rows
        return self.row_ladder[max(0, bisect_right(self.row_ladder, rows) - 1)]

    def useful_rows(self, latency: LatencyModel, length: int) -> int:
        """Returns the knee: the smallest batch with `USEFUL_SHARE` of the best throughput measured so far."""
        return max(1, min(self.largest_rows, latency.best_rows(self.largest_rows, length, USEFUL_SHARE)))

    def halve(self) -> None:
        """Halves the largest batch, to a possible size of at least one row."""
        self.largest_rows = max(1, self.computable_rows(self.largest_rows // 2))
