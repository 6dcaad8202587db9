"""Columns of other people's Parquet files, read as ids of entities and as times."""

import pyarrow as pa
import pyarrow.compute as pc

FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # of the years 1 and 9999
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}


def ids_of(column: pa.Array) -> pa.Array:
    """Returns ids of entities as text; whole numbers in decimal. Raises ValueError for a column of another type."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"is of type {column.type}; an id is a text or a whole number")
    return column.cast(kind).cast(pa.string())


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def micros_of(column: pa.Array) -> pa.Array:
    """Returns times in microseconds since 1970, rounded down. Times without a zone are UTC; a date is its midnight.

    Raises ValueError if the column holds no times, or one beyond the years 1 to 9999."""
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise ValueError(f"is of type {column.type}; expected a timestamp")
    try:
        micros = _micros(column)
        span = pc.min_max(micros)
    except pa.ArrowInvalid:
        raise ValueError("has a time beyond the years 1 to 9999") from None
    if span["min"].is_valid and not FIRST_US <= span["min"].as_py() <= span["max"].as_py() <= LAST_US:
        raise ValueError("has a time beyond the years 1 to 9999")
    return micros


def _micros(column: pa.Array) -> pa.Array:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    unit = column.type.unit
    count = column.cast(pa.timestamp(unit)).cast(pa.int64())
    if unit != "ns":
        return pc.multiply_checked(count, _MICROS[unit])
    whole = pc.floor_temporal(count.cast(pa.timestamp("ns")), unit="microsecond")
    return pc.divide(whole.cast(pa.int64()), 1000)
