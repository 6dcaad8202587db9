"""Draws the arena's chart: goodput of all servers in all cases, as SVG for a README. Pure functions."""

from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.arena.case import SITUATIONS, Case, find

_LEFT, _CELL, _BAR, _TOP, _GAP = 190, 200, 15, 58, 26
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #3a3f47; } .soft { fill: #737a85; } .head { font-weight: 600; }
.bar { fill: #b9c0ca; } .ours { fill: #2f74c0; } .rule { stroke: #d9dce1; }
@media (prefers-color-scheme: dark) { text { fill: #d6d9de; } .soft { fill: #9aa1ac; } .bar { fill: #59616d; }
.ours { fill: #5fa3ea; } .rule { stroke: #3a3f47; } }
"""


def picture(cases: Sequence[Case], titles: Mapping[str, str], ours: str = "headway") -> str:
    """Draws a row of bars per work and contestant, and a column per situation. Bars are relative to the best of each
    work and situation."""
    works = list(dict.fromkeys(case.work for case in cases))
    situations = [each for each in SITUATIONS if any(case.situation == each for case in cases)]
    names = [name for name in titles if any(case.contestant == name for case in cases)]
    parts = ['<text class="head" x="0" y="16">Answers in time per second (goodput)</text>']
    for column, situation in enumerate(situations):
        parts.append(f'<text class="soft" x="{_LEFT + column * _CELL}" y="40">{situation}</text>')
    top = _TOP
    for work in works:
        parts.append(f'<text class="head" x="0" y="{top + 10}">{escape(work)}</text>')
        top += 18
        for name in names:
            weight = ' class="head"' if name == ours else ""
            parts.append(f'<text{weight} x="0" y="{top + 11}">{escape(_short(titles[name]))}</text>')
            for column, situation in enumerate(situations):
                parts.append(_bar(cases, work, situation, name, _LEFT + column * _CELL, top, name == ours))
            top += _BAR + 4
        parts.append(f'<path class="rule" d="M0 {top + 8}H{_LEFT + len(situations) * _CELL}"/>')
        top += _GAP
    width = _LEFT + len(situations) * _CELL
    inner = "".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}">'
        f"<style>{_STYLE}</style>{inner}</svg>\n"
    )


def _bar(cases: Sequence[Case], work: str, situation: str, name: str, left: int, top: int, is_ours: bool) -> str:
    case = find(cases, work, situation, name)
    if case is None:
        return f'<text class="soft" x="{left}" y="{top + 11}">not measured</text>'
    best = max(each.goodput_per_s for each in cases if (each.work, each.situation) == (work, situation))
    width = (_CELL - 70) * case.goodput_per_s / best if best else 0.0
    kind = "bar ours" if is_ours else "bar"
    return (
        f'<rect class="{kind}" x="{left}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" rx="2"/>'
        f'<text x="{left + width + 5:.1f}" y="{top + 11}">{case.goodput_per_s:,.0f}</text>'
    )


def _short(title: str) -> str:
    return "Triton" if title.startswith("Triton") else title
