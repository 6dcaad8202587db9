"""Checks the rows that are pushed into a feature view: typed values, or an error that names row and field. Pure.

A row is a mapping with the column of the entity's id, `event_ts`, and any of the view's features:

    {"user_id": "u7", "event_ts": "2026-11-29T12:00:00Z", "age": 41, "country": null}

A feature that the row leaves out stays as it is. null says that from the event time on no value is known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from serving.features.values import fitting, shown
from serving.features.views import FeatureView, Scalar

EVENT_TS = "event_ts"
MOST_ENTITIES = 1000  # in one request, to write or to read
LONGEST_ID = 512  # bytes of an entity's id in UTF-8
FUTURE_MS = 60_000  # clocks may differ so much
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadField(ValueError):
    """A field is wrong. path: where it stands, as in `rows[3].age`."""

    def __init__(self, path: str, fact: str) -> None:
        super().__init__(f"{path}: {fact}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Row:
    """The values of one entity at one time. event_ms: milliseconds since 1970. values: None is known to be missing."""

    id: str
    event_ms: int
    values: Mapping[str, Scalar | None]


def rows_of(
    view: FeatureView, given: Sequence[object], *, now_ms: int, path: str = "rows", first: int = 0
) -> list[Row]:
    """Returns the rows with typed values. Raises BadField for the first mistake.

    now_ms: milliseconds since 1970. path: the name of the list in messages. first: the index of the first row in it."""
    return [_row(view, row, f"{path}[{index}]", now_ms) for index, row in enumerate(given, first)]


def id_of(value: object, path: str) -> str:
    """Returns the id of an entity: a text, or a whole number in decimal digits. Raises BadField."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 64 else ""
    if not isinstance(value, str):
        raise BadField(path, f"expected the id of an entity, a text or a whole number, got {shown(value)}")
    if not value:
        raise BadField(path, "the id of an entity is empty, or a number that is too large")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadField(path, "is no text that UTF-8 can hold") from None
    if size > LONGEST_ID:
        raise BadField(path, f"is an id of {size} bytes; at most {LONGEST_ID} are taken")
    return value


def event_ms_of(value: object, path: str, now_ms: int) -> int:
    """Returns an event time in milliseconds since 1970: from a text as in RFC 3339, with the offset from UTC, or from
    a number of seconds since 1970. Raises BadField, also for times more than a minute in the future."""
    event_ms = _event_ms(value, path)
    if event_ms < 0:
        raise BadField(path, f"{shown(value)} is before 1970")
    if event_ms > now_ms + FUTURE_MS:
        is_far = not isinstance(value, str) and event_ms > now_ms * 100
        hint = "; numbers are seconds, not milliseconds" if is_far else ""
        raise BadField(path, f"{shown(value)} is more than {FUTURE_MS // 1000} seconds in the future{hint}")
    return event_ms


def _event_ms(value: object, path: str) -> int:
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise BadField(path, f"expected a time such as 2026-11-29T12:00:00Z, got {shown(value)}") from None
        if at.tzinfo is None:
            raise BadField(path, f"{shown(value)} has no offset from UTC; write Z or +01:00 after it")
        since = at - _EPOCH
        return (since.days * 86400 + since.seconds) * 1000 + since.microseconds // 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadField(path, f"expected a time such as 2026-11-29T12:00:00Z, or seconds since 1970, got {shown(value)}")
    try:
        return round(value * 1_000_000) // 1000  # not `value * 1000`, which is less than 1001 for 1.001
    except (OverflowError, ValueError):  # infinite, also after the multiplication; NaN
        raise BadField(path, f"{shown(value)} is no time") from None


def _row(view: FeatureView, given: object, path: str, now_ms: int) -> Row:
    if not isinstance(given, Mapping):
        raise BadField(path, f"expected an object with {view.key!r}, {EVENT_TS!r} and features, got {shown(given)}")
    for column in (view.key, EVENT_TS):
        if given.get(column) is None:
            raise BadField(f"{path}.{column}", "is missing")
    values: dict[str, Scalar | None] = {}
    for name, value in given.items():
        if name in (view.key, EVENT_TS):
            continue
        try:
            feature = view.feature(name)
        except KeyError:
            raise BadField(f"{path}.{str(name)[:100]}", f"{view.name} has no such feature") from None
        try:
            values[name] = None if value is None else fitting(feature.datatype, value, allow_nan=feature.allow_nan)
        except ValueError as error:
            raise BadField(f"{path}.{name}", str(error)) from None
    if not values:
        raise BadField(path, f"holds no feature of {view.name}")
    return Row(
        id=id_of(given[view.key], f"{path}.{view.key}"),
        event_ms=event_ms_of(given[EVENT_TS], f"{path}.{EVENT_TS}", now_ms),
        values=values,
    )
