"""Rows for tests of the offline store, and the answers that it should give, found by trying every row."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from serving.features.offline import layout
from serving.features.offline.files import Bucket, Store
from serving.features.views import FeatureView, Missing
from serving.testing.files import MemoryFiles

NOON = 1_700_000_000_000_000  # microseconds since 1970
SECOND, DAY = 1_000_000, 86_400_000_000


def in_memory(folder: Path, **faults: Any) -> tuple[Bucket, MemoryFiles]:
    """Returns a store in a bucket, with its copies in the folder, and what stands in for the bucket."""
    objects = MemoryFiles(**faults)
    return Bucket(objects, folder / "copies", "s3://bucket/features"), objects


KINDS: dict[str, Callable[[Path], Store]] = {
    "folder": lambda folder: folder,
    "bucket": lambda folder: in_memory(folder)[0],
}


class Row(NamedTuple):
    """A row of a view. values: by feature; None: known to be missing."""

    id: str
    event: int
    created: int
    values: dict[str, Any]


def stored(root: Store, view: FeatureView, rows: Sequence[Row], *, tenant: str = "acme", name: str = "") -> int:
    """Appends the rows as one batch. Returns how many were added."""
    features = pa.table(
        {
            feature.name: pa.array([row.values.get(feature.name) for row in rows], layout.TYPES[feature.datatype])
            for feature in view.features
        }
    )
    event, created = (pa.array([row[index] for row in rows], pa.int64()).cast(layout.TIME) for index in (1, 2))
    cleared = [[name for name, value in row.values.items() if value is None] or None for row in rows]
    ids = pa.array([row.id for row in rows], pa.string())
    made = layout.rows_of(view, ids, features, event, created, pa.array(cleared, pa.list_(pa.string())))
    return layout.append(root, tenant, view, made, name=name)


def tried(
    view: FeatureView, rows: Iterable[Row], id: str | None, at: int, *, by_event_time: bool = False
) -> dict[str, tuple[Any, str | None]]:
    """Returns value and reason of each feature at this time. rows: in the order in which they were written."""
    answers: dict[str, tuple[Any, str | None]] = {}
    for feature in view.features:
        latest: tuple[tuple[int, int, int], Any] | None = None
        for place, row in enumerate(rows):
            is_known = row.event <= at and (by_event_time or row.created <= at)
            if row.id == id and feature.name in row.values and is_known:
                found = (row.event, row.created, place), row.values[feature.name]
                latest = found if latest is None or found[0] > latest[0] else latest
        value = None if latest is None else latest[1]
        age = 0 if latest is None else at - latest[0][0]
        ttl = feature.ttl_s * SECOND
        if value is None or age >= ttl + 7 * DAY:
            answers[feature.name] = feature.default, "missing"
        elif age >= ttl:
            answers[feature.name] = value if feature.missing is Missing.LAST_KNOWN else feature.default, "expired"
        else:
            answers[feature.name] = value, None
    return answers
