"""The point-in-time join: what the store knew about entities at given times. In DuckDB, out of core.

A row is seen from the time at which its event has happened and it has been written. A late row, seen when a newer one
is there already, never becomes the answer, as it never replaces a value online. Without late rows, the rows of an
entity are in order of both their event and the time from which they are seen, so that the last one seen is the answer:
an ASOF join. Times are microseconds since 1970 in UTC. Knows nothing of how labels are read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from serving.features.offline import answering, layout
from serving.features.offline.answering import MICROS, SQL_TYPES, feature_column, key_column, quoted, text
from serving.features.offline.errors import OfflineError
from serving.features.offline.files import Store
from serving.features.views import Feature, FeatureView

READABLE = tuple(str(number) for number in range(1, layout.SCHEMA + 1))  # the schemas of files


class StoreUnreadable(OfflineError):
    """The files of the offline store cannot be read. The text names one."""


@dataclass(frozen=True, slots=True)
class Found:
    """The number of labels for which a feature has a valid value, and of those without one by the reason."""

    valid: int
    expired: int
    missing: int


def open_database(memory: str, threads: int, spill: Path) -> duckdb.DuckDBPyConnection:
    """Returns a database in memory that keeps to these bounds. spill: the folder for what does not fit."""
    settings: dict[str, Any] = {"memory_limit": memory, "threads": threads, "temp_directory": str(spill)}
    return duckdb.connect(config=settings | {"preserve_insertion_order": False, "autoload_known_extensions": False})


class History:
    """The answers for the table `labels` of the database: `label` (from 0), `asked_at`, and a `key_column` for a view.

    Each view that is joined adds tables with a row for each label. by_event_time: takes rows as seen from their event
    on, whenever they were written.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, *, by_event_time: bool) -> None:
        self._database = database
        self._by_event_time = by_event_time
        self._answers: list[tuple[FeatureView, Sequence[Feature], str]] = []  # with the table of their answers
        first, last = self._one("SELECT min(asked_at), max(asked_at) FROM labels")
        self._first, self._last = first or 0, last or 0

    def join(self, view: FeatureView, store: Store, tenant: str) -> None:
        """Finds the latest values that were seen at each label. Raises StoreUnreadable and OSError."""
        try:
            self._read(view, store, tenant)
            for group in self._groups(view.features):
                table = f"answers_{len(self._answers)}"
                self._database.execute(f"CREATE TEMP TABLE {table} AS {self._latest(group)}")
                self._answers.append((view, group, table))
        except duckdb.Error as error:
            raise StoreUnreadable(f"{view.name}: {str(error).partition(chr(10))[0]}") from error
        self._database.execute("DROP TABLE seen; DROP TABLE asked")

    def found(self) -> dict[str, dict[str, Found]]:
        """Returns how many labels have a value of each feature, by view."""
        by_view: dict[str, dict[str, Found]] = {}
        for view, group, table in self._answers:
            for feature in group:
                valid, expired, labels = self._one(
                    f"SELECT count(*) FILTER ({answering.is_valid(feature, table)}), "
                    f"count(*) FILTER ({answering.is_expired(feature, table)}), count(*) FROM {table}"
                )
                found = Found(valid=valid, expired=expired, missing=labels - valid - expired)
                by_view.setdefault(view.name, {})[feature.name] = found
        return by_view

    def answers(self, *, reasons: bool = False) -> pa.RecordBatchReader:
        """Returns the features of all views by label, in the order of the labels.

        reasons: after each feature follows the reason why it has no valid value; null if it has one.
        """
        columns: list[str] = []
        for view, group, table in self._answers:
            for feature in group:
                name = quoted(answering.column_of(view, feature))
                columns.append(f"{answering.answer(feature, table)} AS {name}")
                if reasons:
                    name = quoted(answering.reason_column_of(view, feature))
                    columns.append(f"{answering.reason(feature, table)} AS {name}")
        joins = " ".join(f"JOIN {table} USING (label)" for _, _, table in self._answers)
        query = f"SELECT {', '.join(columns)} FROM labels {joins} ORDER BY label"
        return self._database.sql(query).to_arrow_reader()

    def _read(self, view: FeatureView, store: Store, tenant: str) -> None:
        """Makes the table `asked`, of the labels with a number for each entity, and the table `seen`, of the rows that
        may answer them."""
        run = self._database.execute
        key = key_column(view)
        run(
            f"CREATE TEMP TABLE entities AS SELECT id, row_number() OVER () AS entity "
            f"FROM (SELECT DISTINCT {key} AS id FROM labels WHERE {key} IS NOT NULL)"
        )
        run(f"CREATE TEMP TABLE asked AS SELECT label, asked_at, entity FROM labels LEFT JOIN entities ON {key} = id")
        columns = ", ".join(f"{feature_column(feature)} {SQL_TYPES[feature.datatype]}" for feature in view.features)
        run(
            "CREATE TEMP TABLE seen (entity BIGINT, event BIGINT, created BIGINT, place BIGINT, seen_at BIGINT, "
            f"cleared VARCHAR[], {columns})"
        )
        if paths := self._paths(view, store, tenant):
            source = f"read_parquet({_texts(paths)}, union_by_name = true, hive_partitioning = false)"
            present = {name for name, *_ in run(f"DESCRIBE SELECT * FROM {source}").fetchall()}
            names = {feature.name: feature_column(feature) for feature in view.features}
            values = ", ".join(
                f"{quoted(name) if name in present else 'NULL'} AS {column}"
                for name, column in {layout.CLEARED: "cleared", **names}.items()
            )
            seen_at = "event" if self._by_event_time else "greatest(event, created)"
            run(f"""
                INSERT INTO seen
                SELECT entity, event, created, place, {seen_at} AS seen_at, cleared, COLUMNS('^feature ')
                FROM (
                    SELECT {layout.ID} AS id, epoch_us({layout.EVENT}) AS event, epoch_us({layout.CREATED}) AS created,
                        (file_index << 32) + file_row_number AS place, {values}
                    FROM {source} WHERE {layout.VERSION} = {text(view.version)}
                ) JOIN entities USING (id)
                WHERE seen_at <= {self._last} AND event > {self._first - answering.oldest_us(view)}""")
        run("DROP TABLE entities")

    def _paths(self, view: FeatureView, store: Store, tenant: str) -> list[str]:
        """Returns the files that may hold answers. Raises StoreUnreadable if this release cannot read one."""
        since, until = _day(self._first - answering.oldest_us(view)), _day(self._last)
        paths = [str(path) for path in layout.files(store, tenant, view.name, since, until)]
        if not paths:
            return []
        key = text(layout.SCHEMA_KEY.decode())
        told = self._database.execute(
            f"SELECT file_name, value FROM parquet_kv_metadata({_texts(paths)}) WHERE key = {key}"
        )
        schemas = {name: bytes(value).decode(errors="replace") for name, value in told.fetchall()}
        for path in paths:
            if (schema := schemas.get(path, "none")) not in READABLE:
                known = ", ".join(READABLE)
                raise StoreUnreadable(f"{path}: has the schema version {schema!r}; this release reads {known}")
        return paths

    def _groups(self, features: Sequence[Feature]) -> list[list[Feature]]:
        """Returns the features grouped so that those of a group are in the same rows of `seen`, and in no others."""
        counted = ", ".join(f"count(*) FILTER ({_is_there(feature)})" for feature in features)
        total, *counts = self._one(f"SELECT count(*), {counted} FROM seen")
        alike: dict[int, list[Feature]] = {}
        for feature, count in zip(features, counts, strict=True):
            alike.setdefault(count, []).append(feature)
        groups = []
        for count, (first, *others) in alike.items():
            apart: Sequence[int] = [0] * len(others)
            if others and count not in (0, total):
                differing = (f"count(*) FILTER ({_is_there(first)} <> {_is_there(other)})" for other in others)
                apart = self._one(f"SELECT {', '.join(differing)} FROM seen")
            groups.append([first, *(other for other, rows in zip(others, apart, strict=True) if not rows)])
            groups += [[other] for other, rows in zip(others, apart, strict=True) if rows]
        return groups

    def _latest(self, group: Sequence[Feature]) -> str:
        """Returns the query for the latest row at each label that has the features of the group.

        The rows of an entity are put in the order in which they are seen; of those seen at once, the one that replaces
        the others comes last. A row is late if an earlier one has a newer event.
        """
        names = ", ".join(map(feature_column, group))
        return f"""
            SELECT label, asked_at, known.event, {names} FROM asked ASOF LEFT JOIN (
                SELECT entity, seen_at, event, {names} FROM seen WHERE {_is_there(group[0])}
                WINDOW seeing AS (PARTITION BY entity ORDER BY seen_at, event, created, place)
                QUALIFY event >= max(event) OVER (seeing ROWS UNBOUNDED PRECEDING)
                    AND seen_at IS DISTINCT FROM lead(seen_at) OVER (seeing)
            ) AS known ON asked.entity = known.entity AND asked_at >= known.seen_at"""

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._database.execute(query).fetchone()
        assert row is not None
        return row


def _is_there(feature: Feature) -> str:
    """Returns the condition that a row says something of the feature: its value, or that none is known."""
    return f"({feature_column(feature)} IS NOT NULL OR coalesce(list_contains(cleared, {text(feature.name)}), false))"


def _texts(paths: Sequence[str]) -> str:
    return f"[{', '.join(map(text, paths))}]"


def _day(at_us: int) -> date:
    """Returns the day of this time in UTC; the first or last one there is if it is beyond."""
    try:
        return date(1970, 1, 1) + timedelta(days=at_us // (86400 * MICROS))
    except OverflowError:
        return date.min if at_us < 0 else date.max
