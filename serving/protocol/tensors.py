"""Maps the datatypes of the Open Inference Protocol to numpy's, and reads raw tensor bytes as arrays without a copy.

Everything is little-endian. Views may be read-only and unaligned, since they point into the client's message.
numpy has no BF16. It is `ml_dtypes.bfloat16` if that package is installed (tritonclient depends on it), else `uint16`
with the same bits. Both are accepted when encoding.
"""

import struct
from collections.abc import Sequence
from functools import cache
from math import prod
from mmap import mmap

import numpy as np

from serving.protocol.errors import BadTensor
from serving.protocol.joining import joined
from serving.protocol.messages import Tensor
from serving.protocol.objects import empty

MAX_RANK = 32
MAX_ELEMENTS = 2**63 - 1
SIZES = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
DATATYPES = (*SIZES, "BYTES")
NOT_IN_JSON = frozenset({"FP16", "BF16"})
_NAMES = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O"}
_LENGTH = struct.Struct("<I")
_AT_ONCE = 1 << 14  # elements per call that holds the interpreter's lock


@cache
def numpy_dtype(datatype: str) -> np.dtype[np.generic]:
    """Returns the numpy type of a known datatype. Raises KeyError for an unknown one: callers check it first."""
    if datatype == "BF16":
        try:
            import ml_dtypes
        except ImportError:
            return np.dtype("<u2")
        bfloat16: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    if datatype in _NAMES:
        return np.dtype(_NAMES[datatype])
    return np.dtype(f"<{'u' if datatype.startswith('U') else 'i'}{SIZES[datatype]}")


@cache
def datatype_of(dtype: np.dtype[np.generic]) -> str:
    """Returns the datatype of a numpy type; text and object arrays are BYTES. Raises ValueError if the protocol has no
    such datatype."""
    if dtype.kind in "OSU":
        return "BYTES"
    for datatype in SIZES:
        if dtype == numpy_dtype(datatype) and not (datatype == "BF16" and dtype.kind == "u"):
            return datatype
    raise ValueError(f"the protocol has no datatype for numpy's {dtype}")


def element_count(shape: Sequence[int], path: str) -> int:
    """Returns the number of elements of `shape`. Raises BadTensor, before anything is allocated, for a shape that no
    numpy array can have."""
    if len(shape) > MAX_RANK:
        raise BadTensor(f"{len(shape)} dimensions, at most {MAX_RANK} are possible", path=f"{path}.shape")
    for index, size in enumerate(shape):
        if size < 0:
            raise BadTensor(f"dimensions must not be negative, got {size}", path=f"{path}.shape[{index}]")
        if size > MAX_ELEMENTS:
            raise BadTensor("the dimension is too large", path=f"{path}.shape[{index}]")
    count = prod(shape)
    # Even if one dimension is 0, the product of the others must not overflow numpy's strides.
    if prod(size for size in shape if size) > MAX_ELEMENTS:
        raise BadTensor("the number of elements is too large", path=f"{path}.shape")
    return count


def check_size(datatype: str, count: int, byte_size: int, path: str) -> None:
    """Raises BadTensor if raw data of `byte_size` bytes cannot hold exactly `count` elements."""
    if datatype == "BYTES":
        if byte_size < count * _LENGTH.size:
            raise BadTensor(
                f"{byte_size} bytes cannot hold {count} BYTES elements, each starts with 4 bytes of length", path=path
            )
    elif byte_size != count * SIZES[datatype]:
        raise BadTensor(
            f"{byte_size} bytes of data, but the shape and {datatype} need {count * SIZES[datatype]}", path=path
        )


def check_datatype(datatype: str, path: str) -> None:
    if datatype not in DATATYPES:
        raise BadTensor(f"unknown datatype {datatype[:40]!r}", path=f"{path}.datatype")


def read_tensor(
    data: bytes | mmap | memoryview, offset: int, size: int, datatype: str, shape: tuple[int, ...], path: str
) -> Tensor:
    """Returns the tensor in `data[offset : offset + size]` as a view where possible. The caller has checked the size.
    Raises BadTensor."""
    if datatype == "BYTES":
        return read_bytes(data, offset, size, shape, path)
    if datatype == "BOOL":
        # A view could hold bytes other than 0 and 1, which numpy miscounts.
        return np.ndarray(shape, np.uint8, data, offset).astype(np.bool_)
    return np.ndarray(shape, numpy_dtype(datatype), data, offset)


def read_bytes(data: bytes | mmap | memoryview, offset: int, size: int, shape: tuple[int, ...], path: str) -> Tensor:
    """Reads BYTES elements: each is a 32-bit little-endian length and that many bytes. Raises BadTensor."""
    count = prod(shape)
    end = offset + size
    array = empty(count, numpy_dtype("BYTES"))
    elements: list[bytes] = []
    for index in range(count):
        if len(elements) == _AT_ONCE:
            array[index - _AT_ONCE : index] = elements
            elements.clear()
        start = offset + 4
        if start > end:
            raise BadTensor(f"the data ends before element {index} of {count}", path=path)
        offset = start + _LENGTH.unpack_from(data, offset)[0]
        if offset > end:
            raise BadTensor(f"element {index} is longer than the data that is left", path=path)
        elements.append(bytes(data[start:offset]))
    if offset != end:
        raise BadTensor(f"{end - offset} bytes are left after the last of {count} elements", path=path)
    array[count - len(elements) :] = elements
    return array.reshape(shape)


def object_array(elements: Sequence[object], shape: tuple[int, ...]) -> Tensor:
    """Builds an object array. `np.array` would inspect the elements and guess a shape."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def write_tensor(array: Tensor) -> Tensor | bytes:
    """Returns the raw form of a tensor: bytes or an array with the buffer protocol, without a copy where possible."""
    if array.dtype.kind in "OSU":
        return write_bytes(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype.kind == "V":
        # bfloat16 of ml_dtypes does not support the buffer protocol; a view as uint16 does.
        array = array.view(np.uint16)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def write_bytes(array: Tensor) -> bytes:
    flat = array.ravel()
    if flat.size > _AT_ONCE:
        return joined(write_bytes(flat[start : start + _AT_ONCE]) for start in range(0, flat.size, _AT_ONCE))
    parts: list[bytes] = []
    for element in flat.tolist():
        data = as_bytes(element)
        parts += (_LENGTH.pack(len(data)), data)
    return b"".join(parts)


def as_bytes(element: object) -> bytes:
    """Returns one BYTES element as bytes; text is encoded as UTF-8."""
    if isinstance(element, bytes):
        return element
    return element.encode() if isinstance(element, str) else bytes(memoryview(element))  # type: ignore[arg-type]
