"""Merges small files of the offline store: every minute with pushes adds one, and a reader opens them all.

Of a day, files that follow each other and have the same columns become one, with their rows in the same order, which
decides between rows of equal times. It is there as a whole before they are removed: what was ended in between leaves
rows twice, which changes no answer, and is done again.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from serving.features.offline import layout
from serving.features.offline.files import Files, Store, files_in

SMALL_BYTES = 32 << 20  # larger files stay as they are
MOST_BYTES = 128 << 20  # of the files that become one
ROWS_AT_ONCE = 1 << 20  # held in memory, and of a row group


class Compacted(NamedTuple):
    """The number of files before and after. bytes: of those that were merged."""

    before: int
    after: int
    bytes: int


def compact(store: Store, tenant: str, view: str) -> Compacted:
    """Merges the small files of a view. Raises OSError; nothing is lost then, and it may be done again."""
    files = files_in(store)
    paths = layout.listed(store, tenant, view)
    removed = merged = size = 0
    for _, of_day in groupby(paths, key=lambda path: path.parent):
        if len(several := list(of_day)) > 1:
            files.fetch(several)
            for run in _runs(several):
                size += sum(path.stat().st_size for path in run)
                _merge(files, run)
                removed += len(run)
                merged += 1
    return Compacted(len(paths), len(paths) - removed + merged, size)


def _runs(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yields files of a day to merge: at least two that follow each other and have the same columns."""
    run: list[Path] = []
    size = 0
    schema: pa.Schema | None = None
    for path in paths:
        own, bytes = pq.read_schema(path), path.stat().st_size
        fits = bool(run) and size + bytes <= MOST_BYTES
        if bytes > SMALL_BYTES or not fits or schema is None or not _alike(own, schema):
            if len(run) > 1:
                yield run
            run, size = [], 0
        if bytes <= SMALL_BYTES:
            run.append(path)
            size += bytes
            schema = own
    if len(run) > 1:
        yield run


def _alike(one: pa.Schema, other: pa.Schema) -> bool:
    return one.equals(other) and _own(one) == _own(other)


def _own(schema: pa.Schema) -> dict[bytes, bytes]:
    return {key: value for key, value in (schema.metadata or {}).items() if key != layout.HOLDS_KEY}


def _merge(files: Files, run: Sequence[Path]) -> None:
    """Writes the merged file, whose name puts it in the place of the first, and removes those that it holds."""
    held = [name for path in run for name in layout.held_by(path)]
    schema = pq.read_schema(run[0])
    schema = schema.with_metadata({**_own(schema), layout.HOLDS_KEY: ",".join(held).encode()})
    digest = hashlib.sha256(",".join(path.name for path in run).encode()).hexdigest()[:16]
    merged = run[0].with_name(f"{run[0].stem.partition('-')[0]}-{digest}.parquet")
    with files.created(merged) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _gathered(run, schema):
            writer.write_table(rows, row_group_size=ROWS_AT_ONCE)
    for path in run:
        files.remove(path)


def _gathered(run: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    tables: list[pa.Table] = []
    rows = 0
    for path in run:
        for group in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            tables.append(pa.Table.from_batches([group]).replace_schema_metadata(schema.metadata))
            rows += group.num_rows
            if rows >= ROWS_AT_ONCE:
                yield pa.concat_tables(tables)
                tables, rows = [], 0
    if tables:
        yield pa.concat_tables(tables)
