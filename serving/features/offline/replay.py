"""Replays served answers: asks the history what was known at their times, and lists what differs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from serving.features.offline.answering import column_of, key_column, reason_column_of
from serving.features.offline.files import Store
from serving.features.offline.history import History, open_database
from serving.features.offline.served import Difference, Known, Served, differences
from serving.features.offline.training import Limits
from serving.features.views import FeatureView


def replay(
    answers: Sequence[Served], views: Mapping[str, FeatureView], store: Store, limits: Limits
) -> Iterator[Difference]:
    """Yields the differences, by tenant and view. Answers of views that are not declared are passed over.

    Raises StoreUnreadable and OSError."""

    def place(served: Served) -> tuple[str, str]:
        return served.tenant, served.view

    for (tenant, name), group in groupby(sorted(answers, key=place), key=place):
        if name in views:
            view, asked = views[name], list(group)
            known = _history(view, asked, store, tenant, limits, by_event_time=False)
            by_event = _history(view, asked, store, tenant, limits, by_event_time=True)
            for served, then, ever in zip(asked, known, by_event, strict=True):
                yield from differences(view, served, then, ever)


def _history(
    view: FeatureView, asked: Sequence[Served], store: Store, tenant: str, limits: Limits, *, by_event_time: bool
) -> list[dict[str, Known]]:
    """Returns the answer of the history for each feature at each of these times."""
    with (
        TemporaryDirectory(dir=limits.spill) as spill,
        open_database(limits.memory, limits.threads, Path(spill)) as database,
    ):
        numbers = pa.array(range(len(asked)), pa.int64())
        times = pa.array([served.at_ms * 1000 for served in asked], pa.int64())
        ids = pa.array([served.id for served in asked], pa.string())
        database.register("asked_of", pa.table([numbers, times, ids], names=["label", "asked_at", "id"]))
        database.execute(f"CREATE TEMP TABLE labels AS SELECT label, asked_at, id AS {key_column(view)} FROM asked_of")
        history = History(database, by_event_time=by_event_time)
        history.join(view, store, tenant)
        rows: list[dict[str, Any]] = history.answers(reasons=True).read_all().to_pylist()
    return [
        {
            feature.name: Known(row[column_of(view, feature)], row[reason_column_of(view, feature)])
            for feature in view.features
        }
        for row in rows
    ]
