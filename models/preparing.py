"""Determines a request's rows, group and padded length, by which it may share a batch. Also makes up requests of any
size."""

from collections.abc import Sequence

import numpy as np

from models.base import InvalidInput, Prepared, Tensors
from models.collate import Pads
from models.datatypes import numpy_type
from models.spec import TensorSpec

SHORTEST_LENGTH = 16
LONGEST_LENGTH = (
    1024  # the largest bucket if the model has no `max_length`; longer requests are served at their own length
)
MADE_UP_SIZE = 32  # of a variable dimension that is not padded


def has_fixed_shapes(inputs: Sequence[TensorSpec]) -> bool:
    """Returns whether all inputs have fixed shapes. All requests of the model may then share a batch, without a check
    of each."""
    return all(-1 not in tensor.row_shape and not tensor.optional for tensor in inputs)


def prepare_fixed(inputs: Tensors) -> Prepared:
    """Prepares a request to a model of fixed shapes. The protocol has checked everything but the number of rows. Raises
    `InvalidInput`."""
    return Prepared(inputs, rows_of(inputs), None, 1)


def prepare_variable(tensors: Tensors, pads: Pads, max_length: int | None = None) -> Prepared:
    """Prepares a request of variable shapes: requests of equal shapes, apart from the padded dimension, form a group.
    Raises `InvalidInput`."""
    rows, length = rows_of(tensors), 1
    group: list[object] = []
    for name, array in tensors.items():
        if name not in pads:
            group.append((name, array.dtype.str, array.shape[1:]))
            continue
        group.append((name, array.dtype.str, array.shape[2:]))
        length = max(length, array.shape[1])
        if array.shape[1] == 0:
            raise InvalidInput(f"{name!r} is empty: its second dimension must be at least 1")
    if max_length is not None and length > max_length:
        raise InvalidInput(f"the input has a length of {length}; the model takes up to {max_length}")
    return Prepared(tensors, rows, tuple(group), length)


def length_buckets(max_length: int | None) -> tuple[int, ...]:
    """Returns the lengths 16, 24, 32, 48, 64, 96 … up to max_length. Padding waste is at most a third of a batch, a
    sixth on average."""
    longest = max_length or LONGEST_LENGTH
    buckets = []
    power = SHORTEST_LENGTH
    while power < longest:
        buckets.append(power)
        if power * 3 // 2 < longest:
            buckets.append(power * 3 // 2)
        power *= 2
    return (*buckets, longest)


def made_up_inputs(inputs: Sequence[TensorSpec], rows: int, length: int) -> Tensors:
    """Makes up inputs of the declared shapes with values that most models accept: integers, which may be indices, are
    zero."""
    random = np.random.default_rng(0)
    tensors: Tensors = {}
    for tensor in inputs:
        sizes = [rows, *(MADE_UP_SIZE if size == -1 else size for size in tensor.row_shape)]
        if tensor.pad is not None:
            sizes[1] = length
        dtype = numpy_type(tensor.datatype)
        if tensor.datatype == "BYTES":
            tensors[tensor.name] = np.full(sizes, b"", dtype=object)
        elif tensor.datatype in ("FP16", "FP32", "FP64", "BF16"):
            tensors[tensor.name] = random.standard_normal(sizes).astype(dtype)
        else:
            tensors[tensor.name] = np.zeros(sizes, dtype)
    return tensors


def resized(example: Prepared, rows: int, length: int, pads: Pads) -> Prepared:
    """Returns the example repeated to this many rows, with its padded tensors repeated or cut to this length."""
    tensors: Tensors = {}
    for name, array in example.tensors.items():
        array = array[np.arange(rows) % len(array)]
        if name in pads:
            array = array[:, np.arange(length) % array.shape[1]]
        tensors[name] = np.ascontiguousarray(array)
    return Prepared(tensors, rows, example.group, length if pads else 1)


def rows_of(tensors: Tensors) -> int:
    """Returns the number of rows of all these tensors. Raises `InvalidInput` if the numbers differ or are zero."""
    rows = -1
    for array in tensors.values():
        if rows < 0:
            rows = len(array)
        elif rows != len(array):
            sizes = ", ".join(f"{name!r} has {len(array)}" for name, array in tensors.items())
            raise InvalidInput(f"all inputs of a request must have the same number of rows: {sizes}")
    if rows == 0:
        raise InvalidInput("the request has no rows")
    return rows
