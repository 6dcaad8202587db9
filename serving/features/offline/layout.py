"""The files of the offline store: Parquet in folders by tenant, view and day, which are only ever added.

    <root>/tenant=<tenant>/view=<view>/date=<day of event_ts in UTC>/<name>.parquet

Tenant and view are percent-encoded, so that no name leaves its folder and no two share one. A file appears whole or not
at all. docs/features-offline.md describes the columns. Knows nothing of what is asked of the rows.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from secrets import token_hex
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.features.offline.files import Files, Store, files_in
from serving.features.views import FeatureView

SCHEMA = 1  # of the files; a reader refuses those of a later one
SCHEMA_KEY = b"headway.features.schema"
VERSION_KEY = b"headway.features.view_version"
HOLDS_KEY = b"headway.features.holds"  # of a merged file: the names of those that it was made of
ID, CLEARED, EVENT, CREATED, VERSION = COLUMNS = ("entity_id", "cleared", "event_ts", "created_ts", "view_version")
TIME = pa.timestamp("us", tz="UTC")
TYPES = {
    "BOOL": pa.bool_(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}


def schema_of(view: FeatureView) -> pa.Schema:
    """Returns the columns of a view's files. Raises ValueError if a feature has the name of one that every file has."""
    for feature in view.features:
        if feature.name in COLUMNS:
            raise ValueError(f"{view.name}: {feature.name!r} is a column of every file; take another name")
    features = [(feature.name, TYPES[feature.datatype]) for feature in view.features]
    metadata = {SCHEMA_KEY: str(SCHEMA).encode(), VERSION_KEY: view.version.encode()}
    own = [(CLEARED, pa.list_(pa.string())), (EVENT, TIME), (CREATED, TIME), (VERSION, pa.string())]
    return pa.schema([(ID, pa.string()), *features, *own], metadata)


def rows_of(
    view: FeatureView,
    ids: pa.Array,
    features: pa.Table,
    event_ts: pa.Array,
    created_ts: pa.Array,
    cleared: pa.Array | None = None,
) -> pa.Table:
    """Returns rows to append: an entity's id, its features, and both times, of type TIME.

    A feature that is null is not in that row, and stays as it is. cleared: the names of those of which no value is
    known from the event on, a list for each row or null."""
    schema = schema_of(view)
    columns = [features.column(feature.name) for feature in view.features]
    if cleared is None:
        cleared = pa.nulls(len(ids), schema.field(CLEARED).type)
    return pa.table([ids, *columns, cleared, event_ts, created_ts, pa.repeat(view.version, len(ids))], schema=schema)


def append(store: Store, tenant: str, view: FeatureView, rows: pa.Table, *, name: str = "") -> int:
    """Adds the rows, made by `rows_of`, to the store: a file for each day. Returns how many rows were added.

    name: of the files; a day that has a file of this name is left as it is. "": a name that no file has.
    Raises OSError; the files of some days may be there by then.
    """
    if not rows.num_rows:
        return 0
    files = files_in(store)
    folder = view_folder(files.root, tenant, view.name)
    added: int = sum(
        of_day.num_rows
        for day, of_day in _by_day(rows)
        if _create(files, folder / f"date={day}" / f"{name or token_hex(16)}.parquet", of_day)
    )
    files.settle(folder, folder.parent, files.root)
    return added


def listed(store: Store, tenant: str, view: str, since: date = date.min, until: date = date.max) -> list[Path]:
    """Returns the view's files with events of these days, both included, in the order of their paths.

    Those in a bucket are not there to be read. Raises OSError."""
    files = files_in(store)
    return files.listed(view_folder(files.root, tenant, view), f"date={since}", f"date={until}")


def files(store: Store, tenant: str, view: str, since: date = date.min, until: date = date.max) -> list[Path]:
    """Returns what `listed` does, to be read. Raises OSError."""
    paths = listed(store, tenant, view, since, until)
    files_in(store).fetch(paths)
    return paths


def view_folder(root: Path, tenant: str, view: str) -> Path:
    return root / f"tenant={quote(tenant, safe='')}" / f"view={quote(view, safe='')}"


def _by_day(rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """Yields the rows of each day in their order. The order decides between rows of equal times."""
    micros = pc.cast(rows.column(EVENT), pa.int64()).combine_chunks()
    days = pc.cast(pc.floor_temporal(micros.cast(pa.timestamp("us")), unit="day"), pa.date32())
    order = pc.sort_indices(days)  # stable
    runs = pc.run_end_encode(days.take(order))
    begin = 0
    for day, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield day, rows.take(order[begin:end])
        begin = end


def held_by(path: Path) -> list[str]:
    """Returns the names of the files whose rows are in this one: of itself, or of those that were merged into it."""
    held = (pq.read_schema(path).metadata or {}).get(HOLDS_KEY)
    return [path.name] if held is None else held.decode().split(",")


def _create(files: Files, path: Path, rows: pa.Table) -> bool:
    """Writes the file. Returns whether it is new, and not in a merged file either."""
    there = files.listed(path.parent.parent, path.parent.name, path.parent.name)
    if path in there:
        files.settle(path.parent)  # its writer may have been killed before
        return False
    merged = [other for other in there if "-" in other.name]
    files.fetch(merged)
    if any(path.name in held_by(other) for other in merged):
        return False
    try:
        with files.created(path) as file:
            pq.write_table(rows, file, compression="zstd")
    except FileExistsError:
        return False
    return True
