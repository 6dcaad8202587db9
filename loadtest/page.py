"""Renders results and sweeps as one self-contained HTML page, without scripts, fonts or external files. Pure
functions."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from loadtest import sweep as sweeping
from loadtest.charts import Series, coarser, columns, empty, label, lines, named_bars
from loadtest.histogram import lower_bound
from loadtest.report import QUANTILES
from loadtest.result import Result, Run
from loadtest.server_watch import batch_sizes, drops, points
from loadtest.sweep import Point, Sweep
from loadtest.tally import Tally, together

_STYLE = Path(__file__).with_name("page.css")
_MOST_WINDOWS = 240  # points of a line; for longer runs, windows are joined


def page(title: str, parts: Sequence[Result | Sweep]) -> str:
    body = "".join(_sweep(part) if isinstance(part, Sweep) else _result(part) for part in parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body><main>{body}</main></body></html>\n"
    )


def _result(result: Result) -> str:
    run = middle_run(result.runs)
    summary = run.summary
    whole = together(run.windows)
    objective = f" within {result.load.within_ms:g} ms" if result.load.within_ms else ""
    lost = summary.planned - summary.answered
    verdict = (
        f"Of {summary.planned:,} planned shots {summary.answered:,} were answered, {summary.in_time:,} of them in time"
        f"{objective} ({summary.in_time / max(1, summary.planned):.1%} of the planned)."
    )
    if len(result.runs) > 1:
        verdict += f" The charts show the run of median goodput among {len(result.runs)}; the table lists all runs."
    tiles = [
        ("in time per second", label(summary.goodput_per_s), False),
        ("answered per second", label(summary.throughput_per_s), False),
        *((f"{name}, ms", _ms(summary.from_planned_ms.get(name)), False) for name in ("p50", "p95", "p99")),
        ("not answered", label(lost), lost > 0),
    ]
    figures = [
        _rates(run.windows),
        _latencies(run.windows, result.load.within_ms),
        _distribution(whole),
        _queue(run),
        _batches(run),
        _reasons(whole),
        *_drops(run),
    ]
    return (
        f"<h1>{escape(result.load.url)}</h1><p class=soft>{escape(result.load.title)}</p>"
        f"<p class=verdict>{escape(verdict)}</p>{_alarms(summary.warnings)}{_tiles(tiles)}"
        f'<div class="charts">{"".join(figures)}</div>{_quantiles(run)}{_runs(result.runs)}'
        f"{_groups('task', run.tasks)}{_groups('tenant', run.tenants)}"
    )


def middle_run(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.summary.goodput_per_s)[len(runs) // 2]


def _sweep(done: Sweep) -> str:
    title = f"Capacity of {done.load.url}"
    runs = [sorted((p for p in done.points if p.rate == rate), key=lambda p: p.goodput_per_s) for rate in done.rates]
    middle = [group[len(group) // 2] for group in runs]
    within = f"{done.load.within_ms:g} ms"

    def curve(name: str, style: str, value: Callable[[Point], float], *, has_dots: bool = True) -> Series:
        points = [(point.offered_per_s, value(point)) for point in middle]
        return Series(name=name, style=style, points=points, has_dots=has_dots)

    hockey = [
        curve("planned", "s0", lambda point: point.offered_per_s, has_dots=False),
        curve("answered", "s1", lambda point: point.throughput_per_s),
        curve("in time", "good", lambda point: point.goodput_per_s),
    ]
    latency = [curve("p50", "q2", lambda point: point.p50_ms), curve("p99", "q3", lambda point: point.p99_ms)]
    offered, limit = "planned requests per second", (done.load.within_ms or 0.0, within)
    figures = [
        _figure(
            "Throughput against offered load",
            "Where a line falls below the grey one, the server no longer answers every request (in time).",
            lines(hockey, x_title=offered, y_title="per second"),
            hockey,
        ),
        _figure(
            "Latency against offered load",
            "From the planned instant, of all planned shots. A line ends where too few were answered for the quantile.",
            lines(latency, x_title=offered, y_title="ms", log_y=True, limit=limit),
            latency,
        ),
    ]
    rows = [
        [f"{p.rate:g}", "{} of {}".format(*done.holds(p.rate)), label(p.goodput_per_s), _ms(p.p50_ms), _ms(p.p99_ms)]
        for p in middle
    ]
    best = f"{done.best:g}" if done.best is not None else "none"
    conclusion = sweeping.text(done).partition("\n\n")[2]
    return (
        f"<h1>{escape(title)}</h1><p class=soft>{escape(done.load.title)}, and other rates</p>"
        f"<p class=verdict>{escape(conclusion)}</p>"
        + _tiles([(f"per second, with {done.share:.0%} within {within}", best, done.best is None)])
        + f'<div class="charts">{"".join(figures)}</div>'
        + _table(["rate", "held", "in time/s", "p50 ms", "p99 ms"], rows)
    )


def _rates(windows: Sequence[Tally]) -> str:
    width, tallies = _drawn(windows)

    def each(count: Callable[[Tally], int]) -> list[tuple[float, float | None]]:
        return [(index * width + width / 2, count(tally) / width) for index, tally in enumerate(tallies)]

    series = [
        Series(name="planned", style="s0", points=each(lambda tally: tally.planned)),
        Series(name="answered", style="s1", points=each(lambda tally: tally.answered)),
        Series(name="in time", style="good", points=each(lambda tally: tally.in_time)),
    ]
    drawing = lines(series, x_title="second at which a shot was planned", y_title="per second")
    return _figure("Planned and answered", "Per second, by the planned second of each shot.", drawing, series)


def _latencies(windows: Sequence[Tally], within_ms: float | None) -> str:
    width, tallies = _drawn(windows)
    series = []
    for name, style, share in (("p50", "q1", 0.5), ("p95", "q2", 0.95), ("p99", "q3", 0.99)):
        values = [(index * width + width / 2, tally.latency.quantile(share)) for index, tally in enumerate(tallies)]
        points = [(at, None if value is None else value / 1e6) for at, value in values]
        series.append(Series(name=name, style=style, points=points))
    limit = (within_ms, f"{within_ms:g} ms") if within_ms else None
    drawing = lines(series, x_title="second at which a shot was planned", y_title="ms", limit=limit)
    return _figure(
        "Latency over time", "From the planned instant to the last byte, of answered shots.", drawing, series
    )


def _distribution(whole: Tally) -> str:
    counts = coarser(whole.latency.counts, lambda bucket: lower_bound(bucket) / 1e6)
    marks = {name: whole.latency.quantile(QUANTILES[name]) for name in ("p50", "p95", "p99")}
    shown = {name: value / 1e6 for name, value in marks.items() if value is not None}
    drawing = columns(counts, x_title="ms, logarithmic", y_title="shots", marks=shown)
    return _figure("Distribution of latency", "From the planned instant, of answered shots.", drawing)


def _queue(run: Run) -> str:
    readings = points(run.server)
    if not readings:
        return _figure("Queue and batches", "", empty("The server reported no statistics."))
    series = [
        Series(name="requests waiting", style="s1", points=[(point.at_s, point.waiting) for point in readings]),
        Series(name="rows per batch", style="good", points=[(point.at_s, point.batch_rows) for point in readings]),
    ]
    busy = sum(point.busy_ratio for point in readings) / len(readings)
    caption = f"Means between readings of the server's statistics; it computed {busy:.0%} of the time."
    return _figure("Queue and batches", caption, lines(series, x_title="second", y_title="mean"), series)


def _batches(run: Run) -> str:
    sizes = batch_sizes(run.server)
    if run.server and run.server[-1].in_buckets:
        counts: dict[str, float] = {f"≤ {size}": count for size, count in sizes.items()}
        drawing = named_bars(counts, x_title="rows of the batch", y_title="batches")
        return _figure("Batch sizes", "Number of batches by their rows, as counted by the server.", drawing)
    rows = {str(size): size * count for size, count in sizes.items()}
    drawing = named_bars(rows, x_title="rows of the batch", y_title="rows")
    caption = "Number of rows in batches of each size, as counted by the server."
    return _figure("Batch sizes", caption, drawing)


def _reasons(whole: Tally) -> str:
    lost: Counter[str] = whole.errors
    if not lost:
        return _figure("Not answered", "", empty("Every planned shot was answered."))
    return _figure("Not answered", "By the server's error, or by how the connection ended.", _by_reason(lost))


def _drops(run: Run) -> list[str]:
    """Returns the chart of dropped requests; no chart if the server does not report reasons."""
    if not run.server or not run.server[-1].in_buckets:
        return []
    dropped = Counter(drops(run.server))
    drawing = _by_reason(dropped) if dropped else empty("The server dropped no request.")
    return [_figure("Dropped by the server", "By reason, from its metrics; requests of all clients.", drawing)]


def _by_reason(counts: Counter[str]) -> str:
    most = max(counts.values())
    bars = "".join(
        f'<div><b>{count:,}</b><span style="--share:{count / most:.1%}">{escape(reason)}</span></div>'
        for reason, count in counts.most_common(12)
    )
    return f'<div class="reasons">{bars}</div>'


def _drawn(windows: Sequence[Tally]) -> tuple[int, list[Tally]]:
    """Joins windows until they are few enough to draw. Returns (seconds per window, windows)."""
    width = max(1, math.ceil(len(windows) / _MOST_WINDOWS))
    return width, [together(windows[start : start + width]) for start in range(0, len(windows), width)]


def _figure(title: str, caption: str, drawing: str, series: Sequence[Series] = ()) -> str:
    legend = "".join(f'<div class="{each.style}"><i></i><span>{escape(each.name)}</span></div>' for each in series)
    shown = f'<div class="legend">{legend}</div>' if legend else ""
    return f"<figure><h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>{shown}{drawing}</figure>"


def _alarms(warnings: Sequence[str]) -> str:
    return "".join(f'<p class="alarm">{escape(warning[0].upper() + warning[1:])}.</p>' for warning in warnings)


def _tiles(tiles: Sequence[tuple[str, str, bool]]) -> str:
    shown = "".join(
        f'<div class="tile{" bad" if is_bad else ""}"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value, is_bad in tiles
    )
    return f'<div class="tiles">{shown}</div>'


def _quantiles(run: Run) -> str:
    summary = run.summary
    rows = [
        [name, *(_ms(values.get(each)) for each in QUANTILES)]
        for name, values in (
            ("from planned, ms", summary.from_planned_ms),
            ("from sent, ms", summary.from_sent_ms),
            ("to first byte, ms", summary.first_byte_ms),
            ("the generator was late by, ms", summary.lateness_ms),
        )
    ]
    return _table(["", *QUANTILES], rows)


def _runs(runs: Sequence[Run]) -> str:
    if len(runs) < 2:
        return ""
    rows = [
        [
            str(number), label(run.summary.throughput_per_s), label(run.summary.goodput_per_s),
            *(_ms(run.summary.from_planned_ms.get(name)) for name in ("p50", "p95", "p99")),
        ]
        for number, run in enumerate(runs, start=1)
    ]  # fmt: skip
    return _table(["run", "answered/s", "in time/s", "p50 ms", "p95 ms", "p99 ms"], rows)


def _groups(title: str, groups: Mapping[str, Tally]) -> str:
    if len(groups) < 2:
        return ""
    rows = []
    for name, tally in groups.items():
        quantiles = [tally.latency.quantile(share) for share in (0.5, 0.99)]
        shown = [_ms(None if value is None else value / 1e6) for value in quantiles]
        rows.append([name, f"{tally.planned:,}", f"{tally.answered:,}", f"{tally.in_time:,}", *shown])
    return _table([title, "planned", "answered", "in time", "p50 ms", "p99 ms"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f'<div class="scroll"><table><thead>{row(head, "th")}</thead><tbody>{body}</tbody></table></div>'


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3g}" if value < 100 else f"{value:,.0f}"
