"""Checks what a model returned against what it declares, before a request completes.

With a wrong name or datatype, a client would read nonsense; with a wrong number of rows, it would get the rows of
other clients. The checks look at names, shapes and datatypes, not at values, except for BYTES.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.base import Model, datatype_of, is_of
from models.spec import ModelSpec, TensorSpec
from serving.core.errors import ModelError


def check_batch(model: Model, outputs: object, rows: int) -> None:
    """Raises ModelError if the outputs of a batch of `rows` rows (padding included) are not as declared."""
    check_rows(outputs, rows)
    if not model.finishes:  # with a `finish`, the outputs of the forward pass need not be those declared
        check_declared(outputs, model.spec.outputs)


def check_rows(outputs: object, rows: int) -> None:
    """Raises ModelError if the first dimension of an output is not `rows`."""
    for name, array in _by_name(outputs).items():
        shape = _array(name, array).shape
        if shape[:1] != (rows,):
            raise ModelError(f"the model returned shape {list(shape)} for output {name!r} of {rows} row(s)")


def check_declared(outputs: object, declared: Sequence[TensorSpec]) -> None:
    """Raises ModelError if a declared output is missing, or has another shape or datatype; ignores other outputs."""
    returned = _by_name(outputs)
    for tensor in declared:
        if tensor.name not in returned:
            raise ModelError(f"the model returned no output {tensor.name!r}")
        array = _array(tensor.name, returned[tensor.name])
        if array.shape[1:] != tensor.row_shape and not tensor.fits(array.shape):
            raise ModelError(
                f"the model returned shape {tensor.shown(array.shape)} for output {tensor.name!r}, "
                f"declared as {list(tensor.shape)}"
            )
        if not is_of(array, tensor.datatype):
            raise ModelError(
                f"the model returned {datatype_of(array)} for output {tensor.name!r}, declared as {tensor.datatype}"
            )
        if tensor.datatype == "BYTES" and array.dtype.kind != "S":
            _check_texts(tensor.name, array.flat)


def check_generated(outputs: object, spec: ModelSpec) -> None:
    """Raises ModelError if one answer of a generation is not as declared. It has a batch dimension only if the model
    is batched."""
    if not spec.batched:
        outputs = {name: _array(name, value)[np.newaxis] for name, value in _by_name(outputs).items()}
    check_declared(outputs, spec.outputs)


def _by_name(outputs: object) -> Mapping[str, Any]:
    if not isinstance(outputs, Mapping):
        raise ModelError(f"the model returned a {type(outputs).__name__}, not its outputs by name")
    return outputs


def _array(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray | np.generic):
        raise ModelError(f"the model returned a {type(value).__name__} for output {name!r}, not an array")
    return value  # type: ignore[return-value]


def _check_texts(name: str, elements: Iterable[object]) -> None:
    for element in elements:
        if isinstance(element, str):
            try:
                element.encode()
            except UnicodeEncodeError as error:
                raise ModelError(
                    f"the model returned a text for output {name!r} that cannot be sent: {error.reason}"
                ) from error
        elif not isinstance(element, bytes | bytearray | memoryview):
            raise ModelError(
                f"the model returned a {type(element).__name__} as an element of output {name!r}, "
                "declared as BYTES: use bytes or str"
            )
