"""Tests the bytes in which outputs are kept outside of the process."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.datatypes import numpy_type
from serving.protocol.errors import BadTensor
from serving.protocol.packing import pack, unpack

# [1, 1700000000000, [["y", "FP32", [1, 2], 1.0 and 2.0], ["t", "BYTES", [1], "hi"]]], written by hand
GOLDEN = bytes.fromhex(
    "93 01 cf 0000018bcfe56800 92"
    "94 a1 79 a4 46503332 92 01 02 c4 08 0000803f 00000040"
    "94 a1 74 a5 4259544553 91 01 c4 06 02000000 6869"
)
NUMBERS = ("BOOL", "UINT8", "INT16", "INT64", "FP16", "FP32", "FP64")
tensors = st.sampled_from(NUMBERS).flatmap(
    lambda datatype: arrays.arrays(numpy_type(datatype), arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
)


def texts(*elements: bytes) -> np.ndarray:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def test_version_one_reads_as_it_is_documented() -> None:
    outputs, expires_ms = unpack(GOLDEN)
    assert expires_ms == 1_700_000_000_000
    assert outputs["y"].tolist() == [[1.0, 2.0]]
    assert outputs["t"].tolist() == [b"hi"]
    assert pack({"y": np.array([[1, 2]], np.float32), "t": texts(b"hi")}, expires_ms) == GOLDEN


@given(st.dictionaries(st.text(max_size=3), tensors, max_size=3), st.lists(st.binary(max_size=3)))
def test_outputs_come_back_as_they_were(numbers: dict[str, np.ndarray], words: list[bytes]) -> None:
    given = numbers | {"words": texts(*words)}
    outputs, expires_ms = unpack(pack(given, 7))
    assert expires_ms == 7
    assert list(outputs) == list(given)
    for name, array in given.items():
        assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
        assert outputs[name].tolist() == array.tolist() or outputs[name].tobytes() == array.tobytes()
        assert not outputs[name].flags.writeable


@pytest.mark.parametrize("end", range(len(GOLDEN)))
def test_a_part_of_it_is_refused(end: int) -> None:
    with pytest.raises(BadTensor):
        unpack(GOLDEN[:end])


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_outputs_or_a_refusal(index: int, value: int) -> None:
    changed = bytearray(GOLDEN)
    changed[index] = value
    try:
        outputs, _ = unpack(bytes(changed))
    except BadTensor:
        return
    for array in outputs.values():
        array.tolist()  # reads every element: none lies outside of the bytes


@given(st.binary(max_size=40))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BadTensor):
        unpack(data)


def test_another_version_is_refused() -> None:
    with pytest.raises(BadTensor, match="packed in version 2, not 1"):
        unpack(GOLDEN.replace(b"\x93\x01", b"\x93\x02", 1))
