"""Checks that a module does what its spec declares, once, with made-up requests, before it serves clients."""

from collections.abc import Sequence

import numpy as np

from models.base import Tensors
from models.datatypes import datatype_name
from models.spec import TensorSpec


class SpecMismatch(Exception):
    """The module and its spec do not match. The text names the mismatch."""


def check_outputs(outputs: Tensors, declared: Sequence[TensorSpec], rows: int, length: int | None) -> None:
    """Raises `SpecMismatch` for a missing output, a wrong datatype, number of rows, or shape.

    length: the request's length if outputs may be as long as the padded inputs, else None.
    """
    if not isinstance(outputs, dict):
        raise SpecMismatch(f"`finish` returned a {type(outputs).__name__}; return a dict of numpy arrays by output")
    for tensor in declared:
        array = outputs.get(tensor.name)
        if array is None:
            raise SpecMismatch(f"output {tensor.name!r} is missing; there are: {', '.join(outputs) or 'none'}")
        if not isinstance(array, np.ndarray):
            raise SpecMismatch(f"output {tensor.name!r} is a {type(array).__name__}, not a numpy array")
        if datatype_name(array.dtype) != tensor.datatype:
            raise SpecMismatch(
                f"output {tensor.name!r} is declared {tensor.datatype}, but comes as {datatype_name(array.dtype)}"
            )
        if array.ndim == 0 or len(array) != rows:
            raise SpecMismatch(
                f"output {tensor.name!r} has shape {list(array.shape)} for {rows} rows of input; "
                "the first dimension must be the rows"
            )
        _check_shape(tensor, array, length)


def check_rows(outputs: Tensors, rows: int) -> None:
    """Checks the input of `finish`: its tensors are not declared, but each must have these rows. Raises
    `SpecMismatch`."""
    for name, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise SpecMismatch(
                f"forward returned {name!r} with shape {list(array.shape)} for {rows} rows of input; "
                "the first dimension must be the rows"
            )


def check_prepared(made: object, rows: int) -> None:
    """Checks that `prepare` returned arrays by name, each with these rows. Raises `SpecMismatch`."""
    if not isinstance(made, dict) or not made:
        what = "an empty dict" if isinstance(made, dict) else f"a {type(made).__name__}"
        raise SpecMismatch(f"`prepare` returned {what}; return a dict of numpy arrays, which `forward` gets in order")
    for name, array in made.items():
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            what = "Python objects" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise SpecMismatch(f"`prepare` returned {what} for {name!r}; return a numpy array of numbers")
        if array.ndim == 0 or len(array) != rows:
            raise SpecMismatch(
                f"`prepare` returned {name!r} with shape {list(array.shape)} for {rows} row(s) of input; "
                "the first dimension must be the rows"
            )


def check_example(example: object, declared: Sequence[TensorSpec]) -> None:
    """Checks that `example` returned at least one row of every declared input. Raises `SpecMismatch`."""
    if not isinstance(example, dict):
        raise SpecMismatch(f"`example` returned a {type(example).__name__}; return a dict of numpy arrays by input")
    for tensor in declared:
        array = example.get(tensor.name)
        if not isinstance(array, np.ndarray) or array.ndim == 0 or not len(array):
            what = "nothing" if array is None else f"a {type(array).__name__}"
            raise SpecMismatch(f"`example` returned {what} for input {tensor.name!r}; return a numpy array of one row")


def misused(method: str, error: Exception, on: str = "") -> SpecMismatch:
    """Returns the error for a hook that fails at load. The method may not be meant as a hook.

    on: describes the argument of the call.
    """
    does = {
        "prepare": "with the inputs of a request",
        "finish": "with the outputs of a request",
        "example": "for one valid row of inputs",
    }
    return SpecMismatch(
        f"`{method}` fails{on and f' {on}'}: {type(error).__name__}: {error}. It is called {does[method]}; if the "
        "method is meant for something else, rename it, or wrap its module in another module"
    )


def lengthened(short: Tensors, short_length: int, long: Tensors, long_length: int) -> frozenset[str]:
    """Returns the outputs whose second dimension follows the padded length, found by comparing two batches of different
    lengths."""
    return frozenset(
        name
        for name in short.keys() & long.keys()
        if short[name].shape[1:2] == (short_length,) and long[name].shape[1:2] == (long_length,)
    )


def _check_shape(tensor: TensorSpec, array: np.ndarray, length: int | None) -> None:
    if not tensor.fits(array.shape):
        raise SpecMismatch(
            f"output {tensor.name!r} is declared {list(tensor.shape)}, but comes as {tensor.shown(array.shape)}"
            + ("" if length is None else f" (for a length of {length})")
        )
