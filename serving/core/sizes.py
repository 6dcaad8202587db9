"""Which shapes a batch may have, and how large it may be."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from serving.core.latency import LatencyModel

LARGEST_ROWS = 128  # computed at once, where the model's owner sets no bound
USEFUL_SHARE = 0.97  # of the best throughput: beyond the smallest batch that reaches it, rows only add latency


@dataclass(slots=True, kw_only=True)
class Sizes:
    """largest_rows: the most rows the model computes at once; halved when the device runs out of memory.
    lengths: the padded lengths, ascending; (1,) where nothing is padded.
    row_ladder: the padded row counts, ascending, where shapes are compiled ahead; None where any count will do.
    """

    largest_rows: int
    lengths: tuple[int, ...] = (1,)
    row_ladder: tuple[int, ...] | None = None

    def padded_length(self, length: int) -> int:
        if length == self.lengths[0]:
            return length
        index = bisect_left(self.lengths, length)
        return self.lengths[index] if index < len(self.lengths) else length

    def padded_rows(self, rows: int) -> int:
        if self.row_ladder is None:
            return rows
        index = bisect_left(self.row_ladder, rows)
        return self.row_ladder[index] if index < len(self.row_ladder) else rows

    def fastest_rows(self, rows: int, latency: LatencyModel, length: int) -> int:
        """What a batch of `rows` is padded to; more than it must be where kernels are faster with more."""
        padded_rows = self.padded_rows(rows)
        return padded_rows if self.row_ladder else latency.fastest_rows(padded_rows, length, self.largest_rows)

    def computable_rows(self, rows: int) -> int:
        """The largest batch that, padded, is no larger than `rows`."""
        if self.row_ladder is None or rows <= 0:
            return rows
        return self.row_ladder[max(0, bisect_right(self.row_ladder, rows) - 1)]

    def useful_rows(self, latency: LatencyModel, length: int) -> int:
        """The smallest batch whose throughput is as good as it gets, as measured so far."""
        return max(1, min(self.largest_rows, latency.best_rows(self.largest_rows, length, USEFUL_SHARE)))

    def halve(self) -> None:
        self.largest_rows = max(1, self.computable_rows(self.largest_rows // 2))
