"""Reads rows of features from files of JSON lines or CSV, each with its line, and makes batches for a server."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from serving.features.rows import EVENT_TS, MOST_ENTITIES

LARGEST_BATCH = 2 << 20  # bytes of JSON, half of what a server takes
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "BOOL": lambda text: _TRUTH[text.lower()],
    "INT32": int,
    "INT64": int,
    "FP32": float,
    "FP64": float,
    "BYTES": str,
}


class BadLine(ValueError):
    """A line of the file cannot be read as a row. The text begins with the number of the line."""

    def __init__(self, line: int, fact: str) -> None:
        super().__init__(f"{line}: {fact}")


class Line(NamedTuple):
    """A row, and the line of the file on which it ends, counted from 1. json: the row as JSON."""

    number: int
    json: bytes


def lines_of(file: TextIO, *, is_csv: bool, datatypes: Mapping[str, str]) -> Iterator[Line]:
    """Yields the rows of a file. Raises BadLine.

    datatypes: those of the view's features, for CSV, where all cells are text. An empty cell is no value: its feature
        stays as it is.
    """
    rows = _csv_rows(file, datatypes) if is_csv else _json_rows(file)
    for number, row in rows:
        yield Line(number, json.dumps(row).encode())


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yields the lines in batches that a server takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == MOST_ENTITIES or size + len(line.json) > LARGEST_BATCH):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.json)
    if batch:
        yield batch


def body_of(batch: Iterable[Line]) -> bytes:
    """Returns the body of the request that pushes a batch."""
    return b'{"rows": [' + b", ".join(line.json for line in batch) + b"]}"


def is_csv(path: Path) -> bool:
    """Returns whether a file is CSV, by its name. Raises ValueError for a name that is neither that nor JSON lines."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".jsonl", ".ndjson"):
        raise ValueError(f"{path}: expected a name that ends in .jsonl, .ndjson or .csv")
    return ending == ".csv"


def _json_rows(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadLine(number, f"is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise BadLine(number, "is no JSON object")
        yield number, row


def _csv_rows(file: TextIO, datatypes: Mapping[str, str]) -> Iterator[tuple[int, dict[str, object]]]:
    reader = csv.reader(file)
    try:
        names = next(reader, [])
        for cells in reader:
            if len(cells) not in (0, len(names)):
                raise BadLine(reader.line_num, f"has {len(cells)} cells; the first line has {len(names)}")
            row = {
                name: _value(name, cell, datatypes, reader.line_num)
                for name, cell in zip(names, cells, strict=False)
                if cell != ""
            }
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise BadLine(reader.line_num, f"is not CSV: {error}") from None


def _value(name: str, cell: str, datatypes: Mapping[str, str], line: int) -> object:
    """Returns the value in a cell: as its feature's datatype says; for the event time a number if it is one."""
    if name == EVENT_TS:
        try:
            return float(cell)
        except ValueError:
            return cell
    datatype = datatypes.get(name, "BYTES")
    try:
        return _FROM_TEXT[datatype](cell)
    except (ValueError, KeyError):
        raise BadLine(line, f"{name}: expected a value of {datatype}, got {cell[:60]!r}") from None
