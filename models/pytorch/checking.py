"""Does a module keep what its spec promises? Asked once with made-up requests, before a client can find out."""

from collections.abc import Sequence

import numpy as np

from models.base import Tensors
from models.datatypes import datatype_name
from models.spec import TensorSpec


class BrokenPromise(Exception):
    """The module and its spec do not fit together. The text says where."""


def check_outputs(outputs: Tensors, declared: Sequence[TensorSpec], rows: int, length: int | None) -> None:
    """Raises `BrokenPromise` for a missing output, a wrong datatype, number of rows, or shape.

    length: the length of the request where outputs may be as long as the padded inputs.
    """
    for tensor in declared:
        array = outputs.get(tensor.name)
        if array is None:
            raise BrokenPromise(f"output {tensor.name!r} is missing; there are: {', '.join(outputs) or 'none'}")
        if not isinstance(array, np.ndarray):
            raise BrokenPromise(f"output {tensor.name!r} is a {type(array).__name__}, not a numpy array")
        if datatype_name(array.dtype) != tensor.datatype:
            raise BrokenPromise(
                f"output {tensor.name!r} is declared {tensor.datatype}, but comes as {datatype_name(array.dtype)}"
            )
        if array.ndim == 0 or len(array) != rows:
            raise BrokenPromise(
                f"output {tensor.name!r} has shape {list(array.shape)} for {rows} rows of input; "
                "the first dimension must be the rows"
            )
        _check_shape(tensor, array, length)


def check_rows(outputs: Tensors, rows: int) -> None:
    """For what `finish` is given: undeclared, but made of rows all the same."""
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise BrokenPromise(
                f"forward returned {name!r} with shape {list(array.shape)} for {rows} rows of input; "
                "the first dimension must be the rows"
            )


def lengthened(short: Tensors, short_length: int, long: Tensors, long_length: int) -> frozenset[str]:
    """The outputs whose second dimension follows the padded length, told from two batches of different lengths."""
    return frozenset(
        name
        for name in short.keys() & long.keys()
        if short[name].shape[1:2] == (short_length,) and long[name].shape[1:2] == (long_length,)
    )


def _check_shape(tensor: TensorSpec, array: np.ndarray, length: int | None) -> None:
    if not tensor.fits(array.shape):
        raise BrokenPromise(
            f"output {tensor.name!r} is declared {list(tensor.shape)}, but comes as {tensor.shown(array.shape)}"
            + ("" if length is None else f" (for a length of {length})")
        )
