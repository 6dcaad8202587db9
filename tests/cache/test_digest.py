"""Tests that requests have equal digests if a model has to answer them alike, and only then."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.datatypes import numpy_type
from serving.cache.digest import digest, size_of

MODEL = b"one"
NUMBERS = ("BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64")


def texts(*elements: bytes, shape: tuple[int, ...] = (-1,)) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def of(**inputs: np.ndarray) -> bytes:
    return digest(MODEL, inputs, None)


def facts(inputs: dict[str, np.ndarray]) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return sorted((name, str(array.dtype), array.shape, array.tobytes()) for name, array in inputs.items())


tensors = st.sampled_from(NUMBERS).flatmap(
    lambda datatype: arrays.arrays(numpy_type(datatype), arrays.array_shapes(min_dims=0, max_side=3, min_side=0))
)
requests = st.dictionaries(st.sampled_from(["a", "b", "ab"]), tensors, max_size=2)


@given(requests, requests)
def test_only_equal_requests_have_equal_digests(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert (digest(MODEL, one, None) == digest(MODEL, two, None)) == (facts(one) == facts(two))


@given(st.lists(st.binary(max_size=3), max_size=4), st.lists(st.binary(max_size=3), max_size=4))
def test_texts_are_compared_one_by_one(one: list[bytes], two: list[bytes]) -> None:
    assert (of(a=texts(*one)) == of(a=texts(*two))) == (one == two)


def test_the_order_of_inputs_does_not_count() -> None:
    x, y = np.ones(2, np.float32), np.zeros(2, np.float32)
    assert of(x=x, y=y) == of(y=y, x=x)
    assert of(x=x, y=y) != of(x=y, y=x)


def test_the_layout_in_memory_does_not_count() -> None:
    square = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert of(x=square.T) == of(x=np.ascontiguousarray(square.T))
    assert of(x=square.astype(">f4").astype(">f4").astype("<f4")) == of(x=square)


@pytest.mark.parametrize(
    ("one", "two"),
    [({}, {"k": 1}), ({"k": 1}, {"k": True}), ({"k": 1}, {"k": 1.0}), ({"k": 1}, {"k": "1"}), ({"k": 1}, {"l": 1})],
)
def test_parameters_count_with_their_types(one: dict[str, object], two: dict[str, object]) -> None:
    x = {"x": np.ones(1, np.float32)}
    assert digest(MODEL, x, one) != digest(MODEL, x, two)
    assert digest(MODEL, x, dict(two)) == digest(MODEL, x, two)


def test_another_model_has_other_digests() -> None:
    x = {"x": np.ones(1, np.float32)}
    assert digest(b"one", x, None) != digest(b"two", x, None)


def test_the_size_is_that_of_values_and_texts() -> None:
    assert size_of({"x": np.ones((2, 3), np.float32), "t": texts(b"four", b"")}) == 24 + 4
