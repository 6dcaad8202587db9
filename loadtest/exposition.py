"""Parses the samples of Prometheus' text format, by name and labels. Pure functions."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    name: str
    labels: Mapping[str, str]
    value: float


def read(text: str) -> Iterator[Sample]:
    """Yields the samples of a scrape. Skips comments and all other lines."""
    for line in text.splitlines():
        if match := _LINE.match(line):
            yield Sample(match[1], dict(_LABEL.findall(match[2] or "")), float(match[3]))
