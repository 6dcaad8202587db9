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
    if not isinstance(outputs, dict):
        raise BrokenPromise(f"`finish` returned a {type(outputs).__name__}; return a dict of numpy arrays by output")
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


def check_prepared(made: object, rows: int) -> None:
    """What `prepare` returned for a request of so many rows: arrays by name, each with these rows."""
    if not isinstance(made, dict) or not made:
        what = "an empty dict" if isinstance(made, dict) else f"a {type(made).__name__}"
        raise BrokenPromise(f"`prepare` returned {what}; return a dict of numpy arrays, which `forward` gets in order")
    for name, array in made.items():
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            what = "Python objects" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise BrokenPromise(f"`prepare` returned {what} for {name!r}; return a numpy array of numbers")
        if array.ndim == 0 or len(array) != rows:
            raise BrokenPromise(
                f"`prepare` returned {name!r} with shape {list(array.shape)} for {rows} row(s) of input; "
                "the first dimension must be the rows"
            )


def check_example(example: object, declared: Sequence[TensorSpec]) -> None:
    """What `example` returned: one row or more of every declared input."""
    if not isinstance(example, dict):
        raise BrokenPromise(f"`example` returned a {type(example).__name__}; return a dict of numpy arrays by input")
    for tensor in declared:
        array = example.get(tensor.name)
        if not isinstance(array, np.ndarray) or array.ndim == 0 or not len(array):
            what = "nothing" if array is None else f"a {type(array).__name__}"
            raise BrokenPromise(f"`example` returned {what} for input {tensor.name!r}; return a numpy array of one row")


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
            f"output {tensor.name!r} is declared {list(tensor.shape)}, but comes as {list(array.shape)}"
            + ("" if length is None else f" (for a length of {length})")
        )
