"""The latest value of each feature of each entity in some rows, as the online store gets them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from serving.features.offline import layout
from serving.features.reading import keep_ms
from serving.features.rows import Row
from serving.features.views import FeatureView, Scalar


def latest_of(view: FeatureView, rows: pa.Table, *, now_ms: int) -> Sequence[Row]:
    """Returns a row for each entity and event time with the features that have their latest value there.

    Of equal event times the later row decides. Values that nobody would be answered any more are left out.
    now_ms: milliseconds since 1970.
    """
    event = pc.divide(rows.column(layout.EVENT).cast(pa.int64()), 1000)
    columns = {"id": rows.column(layout.ID)}
    for number, feature in enumerate(view.features):
        value = rows.column(feature.name)
        is_kept = pc.and_(pc.is_valid(value), pc.greater(event, now_ms - keep_ms(feature)))
        columns[f"value{number}"] = pc.if_else(is_kept, value, pa.scalar(None, value.type))
        columns[f"event{number}"] = pc.if_else(is_kept, event, pa.scalar(None, pa.int64()))
    ordered = pa.table(columns).take(pc.sort_indices(event))  # stable
    wanted = [(name, "last") for name in ordered.column_names[1:]]  # the last that is not null
    latest = ordered.group_by("id", use_threads=False).aggregate(wanted)
    return [row for batch in latest.to_batches() for row in _rows(view, batch)]


def _rows(view: FeatureView, batch: pa.RecordBatch) -> list[Row]:
    values: dict[tuple[str, int], dict[str, Scalar | None]] = {}
    ids = batch.column("id").to_pylist()
    for number, feature in enumerate(view.features):
        found = batch.column(f"value{number}_last").to_pylist()
        events = batch.column(f"event{number}_last").to_pylist()
        for id, event, value in zip(ids, events, found, strict=True):
            if event is not None:
                values.setdefault((id, event), {})[feature.name] = value
    return [Row(id, event, of_row) for (id, event), of_row in values.items()]
