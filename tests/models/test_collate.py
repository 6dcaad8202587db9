"""Collating requests into a batch, and splitting its outputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.base import Bucket, InvalidInput, Prepared
from models.collate import collate, split_rows
from models.preparing import (
    LONGEST_LENGTH,
    length_buckets,
    made_up_inputs,
    prepare_fixed,
    prepare_variable,
    resized,
)
from models.spec import TensorSpec


def floats(*shape: int, start: float = 0.0) -> np.ndarray:
    return (np.arange(np.prod(shape), dtype=np.float32) + np.float32(start)).reshape(shape)


def test_a_single_request_is_passed_on_without_a_copy() -> None:
    part = prepare_fixed({"x": floats(2, 3)})
    assert collate([part], Bucket(2, 1), {})["x"] is part.tensors["x"]


def test_a_single_padded_request_of_the_buckets_length_is_passed_on_without_a_copy() -> None:
    part = prepare_variable({"x": floats(2, 5)}, {"x": 0})
    assert collate([part], Bucket(2, 5), {"x": 0})["x"] is part.tensors["x"]


def test_a_single_request_at_an_unaligned_address_is_copied() -> None:
    odd = np.frombuffer(b"." + floats(1, 4).tobytes(), np.float32, offset=1).reshape(1, 4)
    assert not odd.flags.aligned
    batch = collate([prepare_fixed({"x": odd})], Bucket(1, 1), {})
    assert batch["x"].flags.aligned
    assert np.array_equal(batch["x"], odd)


def test_rows_stand_in_order_and_spare_rows_repeat_the_last() -> None:
    parts = [prepare_fixed({"x": floats(2, 1)}), prepare_fixed({"x": floats(1, 1, start=7)})]
    assert collate(parts, Bucket(5, 1), {})["x"][:, 0].tolist() == [0, 1, 7, 7, 7]


def test_shorter_requests_are_padded_with_the_models_value() -> None:
    pads = {"x": -1}
    parts = [prepare_variable({"x": np.ones((1, length), np.int64)}, pads) for length in (1, 3)]
    assert collate(parts, Bucket(3, 4), pads)["x"].tolist() == [[1, -1, -1, -1], [1, 1, 1, -1], [1, 1, 1, -1]]


def test_a_device_may_bring_its_own_memory() -> None:
    slab = np.zeros((8, 4), np.float32)
    part = prepare_fixed({"x": floats(2, 4)})
    batch = collate([part], Bucket(2, 1), {}, allocate=lambda name, shape, dtype: slab[: shape[0]])
    assert np.shares_memory(batch["x"], slab)
    assert np.array_equal(slab[:2], floats(2, 4))


def test_bytes_are_collated_too() -> None:
    parts = [prepare_fixed({"t": np.array([[text]], dtype=object)}) for text in (b"one", b"three")]
    assert collate(parts, Bucket(3, 1), {})["t"].tolist() == [[b"one"], [b"three"], [b"three"]]


@given(sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=6), spare=st.integers(0, 3))
def test_split_reverses_collate_for_all_sizes(sizes: list[tuple[int, int]], spare: int) -> None:
    pads = {"tokens": 0}
    parts = [
        prepare_variable({"tokens": floats(rows, length, 2, start=index), "plain": floats(rows, 3, start=index)}, pads)
        for index, (rows, length) in enumerate(sizes)
    ]
    bucket = Bucket(sum(rows for rows, _ in sizes) + spare, max(length for _, length in sizes) + spare)
    batch = collate(parts, bucket, pads)
    assert batch["tokens"].shape == (bucket.rows, bucket.length, 2)
    for part, answer in zip(parts, split_rows(batch, parts, frozenset({"tokens"})), strict=True):
        assert np.array_equal(answer["tokens"], part.tensors["tokens"])
        assert np.array_equal(answer["plain"], part.tensors["plain"])


def test_only_requests_that_fit_together_form_a_group() -> None:
    def group(shape: tuple[int, ...], dtype: str = "float32", **pads: int) -> object:
        return prepare_variable({"x": np.zeros(shape, dtype)}, pads).group

    assert group((1, 3)) == group((2, 3))
    assert group((1, 3)) != group((1, 4))
    assert group((1, 3), x=0) == group((1, 4), x=0)
    assert group((1, 3, 2), x=0) != group((1, 3, 5), x=0)
    assert group((1, 3)) != group((1, 3), "int64")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": floats(2, 3), "y": floats(1, 3)}, "same number of rows: 'x' has 2, 'y' has 1"),
        ({"x": floats(0, 3)}, "no rows"),
        ({"x": floats(1, 0)}, "'x' is empty"),
        ({"x": floats(1, 9)}, "length of 9; the model takes up to 8"),
    ],
)
def test_an_unusable_request_is_an_error_of_the_client(inputs: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        prepare_variable(inputs, {"x": 0}, max_length=8)


def test_length_buckets_waste_a_third_at_most_and_end_at_the_longest() -> None:
    assert length_buckets(256) == (16, 24, 32, 48, 64, 96, 128, 192, 256)
    assert length_buckets(10) == (10,)
    assert length_buckets(100)[-2:] == (96, 100)
    assert length_buckets(None)[-1] == LONGEST_LENGTH
    assert all(longer <= shorter * 1.5 for shorter, longer in zip(length_buckets(512), length_buckets(512)[1:]))  # noqa: B905


def test_an_example_is_repeated_to_any_size() -> None:
    example = prepare_variable({"ids": np.array([[5, 6, 7]]), "lengths": np.array([[3]])}, {"ids": 0})
    larger = resized(example, rows=2, length=4, pads={"ids": 0})
    assert larger == Prepared(larger.tensors, rows=2, group=example.group, length=4)
    assert larger.tensors["ids"].tolist() == [[5, 6, 7, 5]] * 2
    assert larger.tensors["lengths"].tolist() == [[3], [3]]
    assert resized(example, rows=1, length=2, pads={"ids": 0}).tensors["ids"].tolist() == [[5, 6]]


def test_made_up_inputs_have_the_declared_types_and_shapes() -> None:
    inputs = (
        TensorSpec(name="a", datatype="FP16", shape=(-1, 3)),
        TensorSpec(name="b", datatype="INT64", shape=(-1, -1), pad=0),
        TensorSpec(name="c", datatype="BYTES", shape=(-1, 1)),
        TensorSpec(name="d", datatype="BF16", shape=(-1, -1)),
    )
    made_up = made_up_inputs(inputs, rows=2, length=7)
    assert {name: (array.shape, array.dtype.name) for name, array in made_up.items()} == {
        "a": ((2, 3), "float16"),
        "b": ((2, 7), "int64"),
        "c": ((2, 1), "object"),
        "d": ((2, 32), "bfloat16"),
    }
    assert not made_up["b"].any()
