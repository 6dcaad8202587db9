"""Prometheus' text format, as far as a run needs it: samples of a scrape, by name and labels. Pure."""

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
    """Comments and what is no sample are passed over."""
    for line in text.splitlines():
        if found := _LINE.match(line):
            yield Sample(found[1], dict(_LABEL.findall(found[2] or "")), float(found[3]))
