"""Collates requests into one padded batch, and splits a batch's outputs into answers. Pure functions on arrays in any
memory."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.base import Bucket, Prepared, Tensors

Pads = Mapping[str, float | int]
Allocate = Callable[[str, tuple[int, ...], np.dtype], np.ndarray]


def collate(parts: Sequence[Prepared], bucket: Bucket, pads: Pads, allocate: Allocate | None = None) -> Tensors:
    """Returns one batch of shape [bucket.rows, ...], with tensors in the order of the first part.

    pads: the padding value of each tensor whose second dimension is padded to bucket.length.
    allocate: provides the batch's memory, for devices with memory of their own. Without it, a single request that
    already has the bucket's shape is passed on without a copy.
    """
    first = parts[0]
    lone = allocate is None and len(parts) == 1 and first.rows == bucket.rows
    allocate = allocate or new_array
    batch: Tensors = {}
    for name, array in first.tensors.items():
        pad = pads.get(name)
        if lone and (pad is None or array.shape[1] == bucket.length) and _is_plain(array):
            batch[name] = array
        elif pad is None:
            batch[name] = _stack(name, parts, bucket.rows, allocate)
        else:
            batch[name] = _stack_padded(name, parts, bucket, pad, allocate)
    return batch


def split_rows(outputs: Tensors, parts: Sequence[Prepared], padded: frozenset[str] = frozenset()) -> list[Tensors]:
    """Returns the rows of each part, in order, as views. Outputs named in `padded` are cut to the part's length."""
    if not padded and len(parts) == sum([part.rows for part in parts]):
        return _split_single_rows(outputs, len(parts))
    answers: list[Tensors] = []
    start = 0
    for part in parts:
        stop = start + part.rows
        answer = {name: array[start:stop] for name, array in outputs.items()}
        for name in padded:
            answer[name] = answer[name][:, : part.length]
        answers.append(answer)
        start = stop
    return answers


def _split_single_rows(outputs: Tensors, count: int) -> list[Tensors]:
    """Splits outputs for parts of one row each, the usual case: iterating takes half the time of slicing."""
    names = tuple(outputs)
    rows = [list(array[:count, np.newaxis]) for array in outputs.values()]
    if len(names) == 1:
        (name,) = names
        return [{name: row} for row in rows[0]]
    return [dict(zip(names, row, strict=True)) for row in zip(*rows, strict=True)]


def new_array(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Allocates a new array. For models that write into their inputs: with it, a single request is copied too."""
    return np.empty(shape, dtype)


def _stack(name: str, parts: Sequence[Prepared], rows: int, allocate: Allocate) -> np.ndarray:
    arrays = [part.tensors[name] for part in parts]
    batch = allocate(name, (rows, *arrays[0].shape[1:]), arrays[0].dtype)
    filled = sum(len(array) for array in arrays)
    np.concatenate(arrays, out=batch[:filled])  # one loop in C into the final place
    _repeat_last_row(batch, filled)
    return batch


def _stack_padded(
    name: str, parts: Sequence[Prepared], bucket: Bucket, pad: float | int, allocate: Allocate
) -> np.ndarray:
    first = parts[0].tensors[name]
    batch = allocate(name, (bucket.rows, bucket.length, *first.shape[2:]), first.dtype)
    start = 0
    for part in parts:
        array = part.tensors[name]
        stop, length = start + len(array), array.shape[1]
        batch[start:stop, :length] = array
        if length < bucket.length:
            batch[start:stop, length:] = pad
        start = stop
    _repeat_last_row(batch, start)
    return batch


def _repeat_last_row(batch: np.ndarray, filled: int) -> None:
    if filled < len(batch):
        batch[filled:] = batch[filled - 1]  # a real row: zeros may cause a division by zero or an invalid index


def _is_plain(array: np.ndarray) -> bool:
    # A tensor cut out of a request body may begin at any byte, but some kernels need aligned memory.
    return array.flags.c_contiguous and array.flags.aligned
