"""Training sets: a Parquet file of labels, written again with the features that were known at the time of each.

A label keeps its columns and its place; none is left out. Labels are read and written in batches.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from serving.features.offline.answering import column_of, key_column, reason_column_of
from serving.features.offline.columns import ids_of, micros_of
from serving.features.offline.errors import OfflineError
from serving.features.offline.files import Store, files_in
from serving.features.offline.history import Found, History, StoreUnreadable, open_database
from serving.features.offline.layout import view_folder
from serving.features.views import FeatureView

BATCH_ROWS = 1 << 16


class BadLabels(OfflineError):
    """The labels cannot be used. The text names the file, the column, and the row (from 0) if there is one."""


class Limits(NamedTuple):
    """The bounds of a join. memory: as DuckDB writes it, `4GB`. spill: the folder for what does not fit into it."""

    memory: str
    threads: int
    spill: Path


class Made(NamedTuple):
    """The training set that was made: its labels, and how many of them have a value, by view and feature."""

    labels: int
    found: dict[str, dict[str, Found]]


def make_training_set(
    labels: Path,
    views: Sequence[FeatureView],
    out: Path,
    *,
    store: Store,
    tenant: str,
    limits: Limits,
    time_column: str,
    by_event_time: bool = False,
    reasons: bool = False,
) -> Made:
    """Writes the labels and the features of the views to `out`, which appears when it is whole.

    time_column: the time of a label; features are as they were known then. by_event_time: as if every value had been
    known from its event on. reasons: adds a column for each feature that says why it has no valid value.
    Raises BadLabels, StoreUnreadable, and OSError.
    """
    files = files_in(store)
    for view in views:
        if not files.has(folder := view_folder(files.root, tenant, view.name)):
            raise StoreUnreadable(
                f"{files.told(folder)} is not there: no rows of {view.name} are stored for the tenant {tenant!r}"
            )
    with (
        _opened(labels) as source,
        TemporaryDirectory(dir=limits.spill) as spill,
        open_database(limits.memory, limits.threads, Path(spill)) as database,
    ):
        _check(source.schema_arrow, labels, views, time_column, reasons)
        _load(source, labels, views, time_column, database)
        try:
            history = History(database, by_event_time=by_event_time)
            for view in views:
                history.join(view, store, tenant)
            _write(_batches(source, labels), source.schema_arrow, history.answers(reasons=reasons), out)
            return Made(source.metadata.num_rows, history.found())
        except (duckdb.Error, pa.ArrowException) as error:
            raise StoreUnreadable(f"the join failed: {str(error).partition(chr(10))[0]}") from error


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise BadLabels(f"{path}: is no Parquet file that can be read: {error}") from None


def _check(schema: pa.Schema, path: Path, views: Sequence[FeatureView], time_column: str, reasons: bool) -> None:
    """Raises BadLabels if a column is missing, or would be there twice."""
    for name in (time_column, *(view.key for view in views)):
        if (count := schema.names.count(name)) != 1:
            told = "is missing" if not count else "is there twice"
            raise BadLabels(f"{path}: the column {name!r} {told}; columns: {', '.join(schema.names)}")
    taken = set(schema.names)
    for view in views:
        for feature in view.features:
            names = (column_of(view, feature), reason_column_of(view, feature))
            for column in names if reasons else names[:1]:
                if column in taken:
                    raise BadLabels(f"{path}: two columns would have the name {column!r}; rename that of the labels")
                taken.add(column)


def _load(
    source: pq.ParquetFile,
    path: Path,
    views: Sequence[FeatureView],
    time_column: str,
    database: duckdb.DuckDBPyConnection,
) -> None:
    """Makes the table `labels` that `History` needs. Raises BadLabels."""
    keys = {view.key: key_column(view) for view in views}
    columns = "".join(f", {column} VARCHAR" for column in keys.values())
    database.execute(f"CREATE TEMP TABLE labels (label BIGINT, asked_at BIGINT{columns})")
    first = 0
    for batch in _batches(source, path, list({time_column, *keys})):
        times = _read(micros_of, batch, time_column, path)
        if times.null_count:
            row = first + times.is_null().index(True).as_py()
            raise BadLabels(f"{path}: {time_column}: is null in row {row}; a label needs a time")
        numbers = pa.array(range(first, first + len(batch)), pa.int64())
        ids = [_read(ids_of, batch, key, path) for key in keys]
        names = [f"c{index}" for index in range(2 + len(ids))]
        database.register("batch", pa.table([numbers, times, *ids], names=names))
        database.execute("INSERT INTO labels SELECT * FROM batch")
        first += len(batch)
    database.unregister("batch")


def _read(how: Callable[[pa.Array], pa.Array], batch: pa.RecordBatch, name: str, path: Path) -> pa.Array:
    try:
        return how(batch.column(name))
    except ValueError as error:
        raise BadLabels(f"{path}: {name}: {error}") from None


def _write(labels: Iterable[pa.RecordBatch], schema: pa.Schema, answers: pa.RecordBatchReader, out: Path) -> None:
    """Writes each batch of labels with its answers. Under another name until the file is whole."""
    unfinished = out.with_name(f".{out.name}.{token_hex(8)}")
    for field in answers.schema:
        schema = schema.append(field)
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for batch, answered in _in_step(labels, answers):
                writer.write_table(pa.table([*batch.columns, *answered.columns], schema=schema))
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)


def _batches(source: pq.ParquetFile, path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    try:
        yield from source.iter_batches(BATCH_ROWS, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise BadLabels(f"{path}: cannot be read: {error}") from error


def _in_step(
    batches: Iterable[pa.RecordBatch], answers: pa.RecordBatchReader
) -> Iterator[tuple[pa.RecordBatch, pa.Table]]:
    """Yields each batch with as many answers, which come in batches of other sizes."""
    ready = answers.schema.empty_table()
    for batch in batches:
        while ready.num_rows < len(batch):
            ready = pa.concat_tables([ready, pa.Table.from_batches([answers.read_next_batch()])])
        yield batch, ready.slice(0, len(batch))
        ready = ready.slice(len(batch))
