"""Makes features of raw rows that are pushed, by the function that also makes them of raw files."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from serving.features.offline.layout import TIME
from serving.features.offline.transform import BadColumn, BadTransformation, Transformation, features_of
from serving.features.rows import EVENT_TS, BadField, Row, event_ms_of, id_of
from serving.features.values import shown
from serving.features.views import FeatureView


def rows_of_raw(
    view: FeatureView, transformation: Transformation, given: Sequence[object], *, now_ms: int, path: str = "raw"
) -> list[Row]:
    """Returns rows with the features that the function makes of these, which have the entity's id, `event_ts` and raw
    columns. Raises BadField. The function gets the id as a text, the time as a timestamp, and null for a raw column
    that a row leaves out; a feature that it leaves null stays as it is."""
    heads = [_head(view, row, f"{path}[{index}]", now_ms) for index, row in enumerate(given)]
    rows: Sequence[Mapping[str, Any]] = given  # type: ignore[assignment]  # `_head` has looked
    names = dict.fromkeys(name for row in rows for name in row if name not in (view.key, EVENT_TS))
    columns: dict[str, pa.Array] = {view.key: pa.array([id for id, _ in heads], pa.string())}
    columns[EVENT_TS] = pa.array([event_ms * 1000 for _, event_ms in heads], pa.int64()).cast(TIME)
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowException, OverflowError) as error:
            raise BadField(path, f"the values of {name[:100]} have no common type: {error}") from None
    try:
        made = features_of(view, transformation, pa.table(columns)).to_pylist()
    except BadColumn as error:
        place = path if error.row is None else f"{path}[{error.row}]"
        raise BadField(place, f"{error.column}: {error.fact}") from None
    except BadTransformation as error:
        raise BadField(path, str(error)) from None
    known = [{name: value for name, value in values.items() if value is not None} for values in made]
    return [Row(id, event_ms, values) for (id, event_ms), values in zip(heads, known, strict=True)]


def _head(view: FeatureView, row: object, path: str, now_ms: int) -> tuple[str, int]:
    if not isinstance(row, Mapping):
        raise BadField(path, f"expected an object with {view.key!r}, {EVENT_TS!r} and raw columns, got {shown(row)}")
    for column in (view.key, EVENT_TS):
        if row.get(column) is None:
            raise BadField(f"{path}.{column}", "is missing")
    return id_of(row[view.key], f"{path}.{view.key}"), event_ms_of(row[EVENT_TS], f"{path}.{EVENT_TS}", now_ms)
