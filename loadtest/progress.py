"""Shows the progress of a run in the terminal: the last seconds, the whole run, and the server's statistics.

Prints nothing if the output is not a terminal."""

from collections import deque
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from loadtest.server_watch import ServerSample, drops, points
from loadtest.tally import Tally, together

_SHOWN_S = 2.0  # long enough for a meaningful p99, short enough to show changes


class LiveProgress:
    """The live table. Use `with LiveProgress(console, seconds) as progress:` and call `progress(tally, at_s, sample)` a
    few times a second."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._seconds = seconds
        self._recent: deque[tuple[float, Tally]] = deque()
        self._whole = Tally()
        self._first: ServerSample | None = None
        self._samples: deque[ServerSample] = deque(maxlen=2)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> "LiveProgress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, tally: Tally, at_s: float, sample: ServerSample | None) -> None:
        self._whole.merge(tally)
        self._recent.append((at_s, tally))
        while self._recent and self._recent[0][0] < at_s - _SHOWN_S:
            self._recent.popleft()
        if sample:
            self._first = self._first or sample
            self._samples.append(sample)
        if self._live:
            self._live.update(self._table(at_s), refresh=True)

    def _table(self, at_s: float) -> Table:
        recent = together([tally for _, tally in self._recent])
        since_s = min(_SHOWN_S, max(at_s, 0.1))
        table = Table(title=f"{min(at_s, self._seconds):.0f} of {self._seconds:g} s", title_justify="left")
        for name in ("", "planned/s", "answered/s", "p50 ms", "p95 ms", "p99 ms", "errors"):
            table.add_column(name, justify="left" if not name else "right")
        table.add_row(f"last {_SHOWN_S:g} s", *_cells(recent, since_s))
        table.add_row("all", *_cells(self._whole, max(at_s, 0.1)))
        if readings := points(list(self._samples)):
            rows = readings[-1].batch_rows
            table.caption = (
                f"server: {readings[-1].waiting:.1f} waiting, batches of {'-' if rows is None else f'{rows:.1f}'}, "
                f"busy {readings[-1].busy_ratio:.0%}"
            )
            if self._first and (dropped := drops([self._first, self._samples[-1]])):
                table.caption += "; dropped: " + ", ".join(f"{count} {why}" for why, count in dropped.items())
        for error, count in self._whole.errors.most_common(3):
            table.add_row(f"[red]{count}[/red] {error[:60]}")
        return table


def _cells(tally: Tally, seconds: float) -> list[str]:
    shares = (0.5, 0.95, 0.99)
    quantiles = [tally.latency.quantile(share) for share in shares]
    lost = tally.planned - tally.answered
    return [
        f"{tally.planned / seconds:.0f}",
        f"{tally.answered / seconds:.0f}",
        *("-" if value is None else f"{value / 1e6:.1f}" for value in quantiles),
        f"[red]{lost}[/red]" if lost else "0",
    ]
