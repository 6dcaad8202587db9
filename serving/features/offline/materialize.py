"""Materializing: raw Parquet files become rows of a view in the offline store, and its latest values online.

In batches, so that memory is bounded. A batch is checked as a whole and then stored; the latest values of some batches
are written online together. Files are named by what is in them: the same batch is stored once, however often it is
materialized, so that a run that was ended is run again. Knows nothing of Redis.
"""

import asyncio
import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.core.clock import Clock
from serving.features.offline import layout
from serving.features.offline.columns import ids_of, micros_of
from serving.features.offline.errors import OfflineError
from serving.features.offline.files import Store
from serving.features.offline.latest import latest_of
from serving.features.offline.transform import BadColumn, BadTransformation, Transformation, features_of, refuse
from serving.features.rows import EVENT_TS, FUTURE_MS, LONGEST_ID, Row
from serving.features.views import FeatureView

BATCH_ROWS = 1 << 17  # of raw rows; another number makes other batches, which are stored again
PORTION_ROWS = 1 << 19  # an entity is written online once in so many rows


class BadSource(OfflineError):
    """A raw file cannot be materialized. The text names the file, the column, and the first wrong row of the file, from
    0. The batches before it are stored and online."""


class OnlineWriter(Protocol):
    """The online store, as far as it is written."""

    async def write(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> int:
        """Writes each value unless one with a later event time is stored. Returns how many it has written."""
        ...


@dataclass(frozen=True, slots=True)
class Raw:
    """The columns of raw files with the time of an event, and with the time from which it was known.

    created: "" if the rows are known from now on."""

    event: str = EVENT_TS
    created: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The work that was done so far: rows that were read, of those stored for the first time, and values online."""

    rows: int = 0
    added: int = 0
    online: int = 0


def files_of(source: str) -> list[Path]:
    """Returns the files that a path names: a file, a folder with all below it, or a pattern. Raises BadSource."""
    path = Path(source)
    if path.is_dir():
        below = sorted(path.rglob("*.parquet"))
        found = [one for one in below if not any(part[0] in "._" for part in one.relative_to(path).parts)]
    else:
        found = [path] if path.is_file() else [Path(one) for one in sorted(glob.glob(source, recursive=True))]
    if not found:
        raise BadSource(f"{source}: there is no Parquet file")
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of rows that is stored. added: how many of them for the first time."""

    path: Path
    rows: pa.Table
    added: int


async def materialize(
    batches: Iterable[Batch],
    view: FeatureView,
    tenant: str,
    online: OnlineWriter | None,
    calendar: Clock,
    progress: Callable[[Path, Done], None],
) -> Done:
    """Stores batches and writes the latest values of each portion of them online. online: None writes nothing there.

    progress: is told after each portion. Raises BadSource, OSError, and what the online store raises.
    """
    done = Done()
    portions = _portions(batches)
    while (portion := await asyncio.to_thread(next, portions, None)) is not None:
        written = 0
        if online is not None:
            rows = pa.concat_tables([batch.rows for batch in portion])
            now_ms = calendar.now_ns() // 1_000_000
            written = await online.write(tenant, view, await asyncio.to_thread(latest_of, view, rows, now_ms=now_ms))
        read, added = sum(len(batch.rows) for batch in portion), sum(batch.added for batch in portion)
        done = Done(done.rows + read, done.added + added, done.online + written)
        progress(portion[-1].path, done)
    return done


def stored_batches(
    files: Iterable[Path],
    view: FeatureView,
    tenant: str,
    *,
    store: Store,
    transformation: Transformation,
    raw: Raw,
    calendar: Clock,
) -> Iterator[Batch]:
    """Stores the rows of the files, in their order, and yields each batch when it is stored.

    Raises BadSource and OSError."""
    for path in files:
        first = 0
        for batch in _batches(path, view, raw):
            now_ms = calendar.now_ns() // 1_000_000
            try:
                rows = checked_rows(view, transformation, raw, batch, now_ms=now_ms)
            except BadColumn as error:
                where = "" if error.row is None else f" (row {first + error.row})"
                raise BadSource(f"{path}: {error.column}: {error.fact}{where}") from None
            except BadTransformation as error:
                raise BadSource(f"{path}: {error}") from error
            added = layout.append(store, tenant, view, rows, name=_digest(rows, with_created=bool(raw.created)))
            yield Batch(path, rows, added)
            first += len(batch)


def checked_rows(
    view: FeatureView, transformation: Transformation, raw: Raw, batch: pa.RecordBatch, *, now_ms: int
) -> pa.Table:
    """Returns the rows to store of a batch of raw ones. Raises BadColumn and BadTransformation.

    Times are kept in whole milliseconds, as online, rounded up: nothing is known before it was.
    """
    ids = _told(ids_of, batch, view.key)
    refuse(view.key, pc.is_null(ids), "is null; a row needs the id of an entity")
    refuse(view.key, pc.equal(pc.binary_length(ids), 0), "is empty; a row needs the id of an entity")
    refuse(view.key, pc.greater(pc.binary_length(ids), LONGEST_ID), f"is an id of more than {LONGEST_ID} bytes")
    event = _times(batch, raw.event, now_ms)
    created = _times(batch, raw.created, now_ms) if raw.created else pa.repeat(now_ms * 1000, len(batch))
    features = features_of(view, transformation, pa.Table.from_batches([batch]))
    return layout.rows_of(view, ids, features, event.cast(layout.TIME), created.cast(layout.TIME))


def _times(batch: pa.RecordBatch, name: str, now_ms: int) -> pa.Array:
    micros = _told(micros_of, batch, name)
    refuse(name, pc.is_null(micros), "is null; a row needs a time")
    refuse(name, pc.less(micros, 0), "is before 1970")
    latest_ms = now_ms + FUTURE_MS
    refuse(name, pc.greater(micros, latest_ms * 1000), f"is more than {FUTURE_MS // 1000} seconds in the future")
    return pc.ceil_temporal(micros.cast(pa.timestamp("us")), unit="millisecond").cast(pa.int64())


def _told(read: Callable[[pa.Array], pa.Array], batch: pa.RecordBatch, name: str) -> pa.Array:
    try:
        return read(batch.column(name))
    except ValueError as error:
        raise BadColumn(name, str(error)) from None


def _batches(path: Path, view: FeatureView, raw: Raw) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in filter(None, (view.key, raw.event, raw.created)):
                if (count := names.count(name)) != 1:
                    told = "is missing" if not count else "is there twice"
                    raise BadSource(f"{path}: the column {name!r} {told}; columns: {', '.join(names)}")
            yield from file.iter_batches(BATCH_ROWS)
    except (pa.ArrowException, OSError) as error:
        raise BadSource(f"{path}: is no Parquet file that can be read: {error}") from error


def _portions(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Yields the batches some at a time; if one has a mistake, first those before it."""
    portion: list[Batch] = []
    try:
        for batch in batches:
            portion.append(batch)
            if sum(len(one.rows) for one in portion) >= PORTION_ROWS:
                yield portion
                portion = []
    except OfflineError:
        if portion:
            yield portion
        raise
    if portion:
        yield portion


def _digest(rows: pa.Table, *, with_created: bool) -> str:
    """Returns the name of the files of these rows: the same for the same rows, whatever tables they came in.

    with_created: also by when they were known, which is not the time of this run."""
    digest = hashlib.sha256()
    for name in rows.column_names:
        if name != layout.CREATED or with_created:
            column = rows.column(name)
            for part in (column.is_valid(), column.drop_null()):
                flat = part.cast(pa.uint8()) if pa.types.is_boolean(part.type) else part
                one = pa.record_batch([flat.combine_chunks()], names=[name])
                digest.update(one.serialize())
    return digest.hexdigest()[:40]
