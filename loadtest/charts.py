"""Draws charts as SVG text: lines over a number, columns over a logarithmic axis, bars over names. Pure functions.

The page's style sheet defines colours and font sizes (classes `s1` …, `grid`, `axis`). Every mark has a <title>, which
browsers show as a tooltip with its value."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 16, 34, 50
_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart. `style` is its CSS class. A y that is None or not finite leaves a gap."""

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]
    has_dots: bool = False


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels along one axis."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) for v in (self.low, self.high, value)) if self.is_log else (
            self.low, self.high, value,
        )  # fmt: skip
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.is_log else ticks(self.low, self.high)


def ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / _TICKS
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 of each decade, or only powers of ten if there are more than three decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    return [factor * 10.0**decade for decade in decades for factor in factors if low <= factor * 10.0**decade <= high]


def label(value: float) -> str:
    """Formats a number briefly: 1.5k, 20, 0.25."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if suffix == 'k' else limit):.3g}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def lines(
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    log_y: bool = False,
    limit: tuple[float, str] | None = None,
    x_from_zero: bool = True,
) -> str:
    """Draws lines over a number. `limit`: a level to mark, and its name."""
    finite = [(x, y) for each in series for x, y in each.points if y is not None and math.isfinite(y)]
    if not finite:
        return empty("nothing was answered")
    tops = [y for _, y in finite] + ([limit[0]] if limit else [])
    low = min(y for y in tops if y > 0) / 1.5 if log_y and max(tops) > 0 else 0.0
    xs = [x for each in series for x, _ in each.points]
    x = Scale(0.0 if x_from_zero else min(xs), max(xs) or 1.0, LEFT, WIDTH - RIGHT)
    y = Scale(low, (max(tops) or 1.0) * (1.5 if log_y else 1.08), HEIGHT - BOTTOM, TOP, is_log=log_y and low > 0)
    parts = [_axes(x, y, x_title, y_title)]
    if limit:
        level = y.at(limit[0])
        parts.append(f'<path class="limit" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="note" x="{LEFT + 6}" y="{level - 5:.1f}">{escape(limit[1])}</text>')
    parts += [_line(each, x, y) for each in series]
    return _svg(parts, y_title)


def _line(series: Series, x: Scale, y: Scale) -> str:
    path, dots, is_down = [], [], False
    for at, value in series.points:
        if value is None or not math.isfinite(value) or (y.is_log and value <= 0):
            is_down = False
            continue
        px, py = x.at(at), y.at(value)
        path.append(f"{'L' if is_down else 'M'}{px:.1f} {py:.1f}")
        is_down = True
        shown = "dot" if series.has_dots else "dot quiet"
        tip = f"{escape(series.name)}: {label(value)} at {label(at)}"
        dots.append(f'<circle class="{shown}" cx="{px:.1f}" cy="{py:.1f}" r="4"><title>{tip}</title></circle>')
    return f'<g class="{series.style}"><path class="line" d="{"".join(path)}"/>{"".join(dots)}</g>'


def columns(
    counts: Sequence[tuple[float, float, int]], *, x_title: str, y_title: str, marks: Mapping[str, float]
) -> str:
    """Draws a histogram over a logarithmic axis. `counts`: (from, to, count) of each column. `marks`: values to mark
    with a line, by name."""
    if not counts:
        return empty("nothing was answered")
    x = Scale(counts[0][0], counts[-1][1], LEFT, WIDTH - RIGHT, is_log=True)
    y = Scale(0.0, max(count for _, _, count in counts) * 1.35, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y, x_title, y_title)]
    for low, high, count in counts:
        left, right, top = x.at(low), x.at(high), y.at(count)
        tip = f"{label(low)} to {label(high)}: {count:,}"
        parts.append(
            f'<rect class="bar s1" x="{left:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 1):.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{tip}</title></rect>'
        )
    for row, (name, value) in enumerate(marks.items()):
        at = x.at(min(max(value, x.low), x.high))
        side, gap = ("end", -5) if at > WIDTH * 0.8 else ("start", 5)
        parts.append(f'<path class="mark" d="M{at:.1f} {HEIGHT - BOTTOM}V{TOP}"/>')
        place = f'text-anchor="{side}" x="{at + gap:.1f}" y="{TOP + 14 + 20 * row}"'
        parts.append(f'<text class="note" {place}>{escape(name)} {label(value)}</text>')
    return _svg(parts, y_title)


def named_bars(counts: Mapping[str, float], *, x_title: str, y_title: str) -> str:
    """Draws columns over names, in their order."""
    if not counts:
        return empty("the server reported nothing")
    y = Scale(0.0, max(counts.values()) * 1.08 or 1.0, HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(counts)
    parts = [_axes(None, y, x_title, y_title)]
    every = max(1, math.ceil(len(counts) / 16))
    for number, (name, count) in enumerate(counts.items()):
        left, top = LEFT + step * number, y.at(count)
        parts.append(
            f'<rect class="bar s1" x="{left + step * 0.1:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"><title>{escape(name)}: {label(count)}</title></rect>'
        )
        if number % every == 0:
            parts.append(_below(left + step / 2, name))
    return _svg(parts, y_title)


def empty(why: str) -> str:
    return f'<p class="nothing">{escape(why)}</p>'


def _axes(x: Scale | None, y: Scale, x_title: str, y_title: str) -> str:
    parts = []
    for value in y.ticks():
        level = y.at(value)
        parts.append(f'<path class="grid" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 8}" y="{level + 4:.1f}">{label(value)}</text>')
    if x:
        parts += [_below(x.at(value), label(value)) for value in x.ticks()]
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text text-anchor="end" x="{WIDTH - RIGHT}" y="{HEIGHT - 6}">{escape(x_title)}</text>')
    # Horizontal, above the axis: beside the axis it would overlap the numbers when fonts are large.
    parts.append(f'<text x="2" y="18">{escape(y_title)}</text>')
    return "".join(parts)


def _below(at: float, text: str) -> str:
    return f'<text text-anchor="middle" x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}">{escape(text)}</text>'


def _svg(parts: Sequence[str], name: str) -> str:
    inner = "".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">{inner}</svg>'


def coarser(
    counts: Mapping[int, int], bound: Callable[[int], float], wanted: int = 60
) -> list[tuple[float, float, int]]:
    """Joins the buckets of a histogram into at most `wanted` columns, (from, to, count). `bound(n)` is the lower bound
    of bucket n."""
    if not counts:
        return []
    low, high = min(counts), max(counts)
    width = max(1, math.ceil((high - low + 1) / wanted))
    columns = []
    for start in range(low, high + 1, width):
        count = sum(counts.get(bucket, 0) for bucket in range(start, start + width))
        columns.append((bound(start), bound(start + width), count))
    return columns
