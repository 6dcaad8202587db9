import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serving.protocol.errors import BadTensor
from serving.protocol.tensors import (
    DATATYPES,
    SIZES,
    check_size,
    datatype_of,
    element_count,
    numpy_dtype,
    read_tensor,
    write_tensor,
)


@pytest.mark.parametrize("datatype", sorted(SIZES))
def test_every_fixed_datatype_has_its_size_and_a_way_back(datatype: str) -> None:
    assert numpy_dtype(datatype).itemsize == SIZES[datatype]
    assert datatype_of(numpy_dtype(datatype)) == datatype


def test_bf16_is_the_real_type_where_it_is_installed() -> None:
    assert numpy_dtype("BF16") == np.dtype(ml_dtypes.bfloat16)


def test_a_type_the_protocol_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="complex64"):
        datatype_of(np.dtype(np.complex64))


@given(st.data())
def test_raw_bytes_round_trip_for_every_datatype(data: st.DataObject) -> None:
    datatype = data.draw(st.sampled_from(sorted(SIZES)))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    raw = data.draw(
        st.binary(min_size=int(np.prod(shape)) * SIZES[datatype], max_size=int(np.prod(shape)) * SIZES[datatype])
    )
    array = read_tensor(b"xyz" + raw, 3, len(raw), datatype, shape, "t")
    assert array.shape == shape
    if datatype == "BOOL":
        raw = bytes(byte != 0 for byte in raw)
    assert bytes(memoryview(b"".join([write_tensor(array)]))) == raw


@given(st.lists(st.binary(max_size=20), min_size=6, max_size=6))
def test_bytes_elements_round_trip(elements: list[bytes]) -> None:
    array = np.array([*elements, None], dtype=object)[:-1].reshape(2, 3)
    raw = write_tensor(array)
    assert isinstance(raw, bytes)
    again = read_tensor(b"??" + raw, 2, len(raw), "BYTES", (2, 3), "t")
    assert again.tolist() == array.tolist()


def test_text_is_sent_as_utf8() -> None:
    assert write_tensor(np.array(["é"])) == b"\x02\x00\x00\x00\xc3\xa9"


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"\x05\x00\x00\x00ab", "element 0 is longer"),
        (b"\x00\x00\x00\x00\x00", "1 bytes are left"),
        (b"\x01\x00", "ends before element 0"),
        (b"\xff\xff\xff\xff", "element 0 is longer"),
    ],
)
def test_damaged_bytes_elements_are_refused(raw: bytes, complaint: str) -> None:
    with pytest.raises(BadTensor, match=complaint):
        read_tensor(raw, 0, len(raw), "BYTES", (1,), "inputs[0]")


def test_a_view_costs_no_copy() -> None:
    body = bytes(4096)
    assert np.shares_memory(read_tensor(body, 0, 4096, "FP32", (1, 1024), "t"), np.frombuffer(body, np.uint8))


def test_bytes_other_than_zero_and_one_become_proper_booleans() -> None:
    array = read_tensor(b"\x00\x02\xff", 0, 3, "BOOL", (3,), "t")
    assert array.tolist() == [False, True, True]
    assert write_tensor(array).tobytes() == b"\x00\x01\x01"


def test_big_endian_and_strided_arrays_leave_little_endian_and_dense() -> None:
    assert bytes(write_tensor(np.array([1, 2], dtype=">i4"))) == b"\x01\x00\x00\x00\x02\x00\x00\x00"
    assert bytes(write_tensor(np.arange(6, dtype=np.uint8).reshape(2, 3).T)) == bytes([0, 3, 1, 4, 2, 5])


@pytest.mark.parametrize(
    ("shape", "path"),
    [
        ([1, -1], "x.shape[1]"),
        ([2**62, 4], "x.shape"),
        ([0, 2**62, 4], "x.shape"),
        ([2**64], "x.shape[0]"),
        ([1] * 33, "x.shape"),
    ],
)
def test_shapes_no_array_can_have_are_refused_before_anything_is_allocated(shape: list[int], path: str) -> None:
    with pytest.raises(BadTensor) as caught:
        element_count(shape, "x")
    assert caught.value.path == path


def test_a_huge_bytes_tensor_needs_as_much_data() -> None:
    with pytest.raises(BadTensor, match="cannot hold"):
        check_size("BYTES", 2**60, 1000, "x")


def test_all_datatypes_are_known_by_name() -> None:
    assert len(DATATYPES) == 14
