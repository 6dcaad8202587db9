"""Tests which values fit into a feature's type."""

from math import isinf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.features.values import fitting
from serving.features.views import DATATYPES, Scalar


@pytest.mark.parametrize(
    ("datatype", "value", "kept"),
    [
        ("BOOL", True, True),
        ("INT32", -(2**31), -(2**31)),
        ("INT64", 2**63 - 1, 2**63 - 1),
        ("FP64", 0.1, 0.1),
        ("FP64", 3, 3.0),
        ("FP32", 0.1, 0.10000000149011612),
        ("BYTES", "Zürich", "Zürich"),
    ],
)
def test_a_value_that_fits_is_kept_as_its_type_holds_it(datatype: str, value: object, kept: Scalar) -> None:
    found = fitting(datatype, value)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("BOOL", 1, r"expected true or false \(BOOL\), got 1"),
        ("INT32", 2**31, "2147483648 does not fit into INT32"),
        ("INT64", -(2**63) - 1, "does not fit into INT64"),
        ("INT64", True, r"expected a whole number \(INT64\), got True"),
        ("INT64", 1.0, r"expected a whole number \(INT64\), got 1.0"),
        ("INT64", "1", "expected a whole number"),
        ("FP64", 10**400, "does not fit into FP64"),
        ("FP32", 1e39, "does not fit into FP32"),
        ("FP64", nan, "nan is not allowed; `allow_nan: true` allows it"),
        ("FP32", -1e999, "-inf is not allowed"),
        ("FP32", "0.5", r"expected a number \(FP32\)"),
        ("BYTES", 3, r"expected a text \(BYTES\), got 3"),
        ("BYTES", None, "got null"),
        ("BYTES", "\ud800", "no text that UTF-8 can hold"),
        ("BYTES", "x" * 10_001, "is a text of 10,001 bytes; at most 10,000"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_the_type(datatype: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitting(datatype, value)


def test_nan_and_infinity_are_taken_where_they_are_allowed() -> None:
    assert isnan(fitting("FP32", nan, allow_nan=True))
    assert isinf(fitting("FP64", 1e999, allow_nan=True))


@given(st.sampled_from(DATATYPES), st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary())
def test_a_value_is_kept_or_refused_and_what_is_kept_fits_again(datatype: str, value: object) -> None:
    try:
        kept = fitting(datatype, value)
    except ValueError:
        return
    assert fitting(datatype, kept) == kept
