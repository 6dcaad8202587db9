"""Checks values of features: a value fits into its declared type or is refused, never changed silently. Pure."""

import struct
from math import isfinite

from serving.features.views import Scalar

WHOLE = {"INT32": 32, "INT64": 64}  # with their bits
FLOATS = ("FP32", "FP64")
LONGEST_TEXT = 10_000  # bytes of a value of BYTES in UTF-8


def fitting(datatype: str, value: object, *, allow_nan: bool = False) -> Scalar:
    """Returns the value as its type holds it: whole numbers are taken as floats, and FP32 is rounded to its precision.

    Raises ValueError with the type that is expected. allow_nan: NaN and infinity are taken too."""
    if datatype == "BOOL" and isinstance(value, bool):
        return value
    if datatype in WHOLE and isinstance(value, int) and not isinstance(value, bool):
        bits = WHOLE[datatype]
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"{shown(value)} does not fit into {datatype}")
        return value
    if datatype in FLOATS and isinstance(value, int | float) and not isinstance(value, bool):
        return _float(datatype, value, allow_nan)
    if datatype == "BYTES" and isinstance(value, str):
        return _text(value)
    wanted = {"BOOL": "true or false", "BYTES": "a text"}.get(datatype, "a number")
    raise ValueError(f"expected {'a whole number' if datatype in WHOLE else wanted} ({datatype}), got {shown(value)}")


def _float(datatype: str, value: float, allow_nan: bool) -> float:
    try:
        whole = float(value)
    except OverflowError:
        raise ValueError(f"{shown(value)} does not fit into {datatype}") from None
    if not isfinite(whole):
        if not allow_nan:
            raise ValueError(f"{whole} is not allowed; `allow_nan: true` allows it")
        return whole
    if datatype == "FP64":
        return whole
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", whole))[0]
    except OverflowError:
        raise ValueError(f"{shown(value)} does not fit into {datatype}") from None
    return rounded


def _text(value: str) -> str:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("is no text that UTF-8 can hold: a half of a surrogate pair is in it") from None
    if size > LONGEST_TEXT:
        raise ValueError(f"is a text of {size:,} bytes; at most {LONGEST_TEXT:,} are kept")
    return value


def shown(value: object) -> str:
    """Returns a value for messages, cut if it is long."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
