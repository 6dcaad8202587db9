"""Checks of a model's outputs against its declared outputs, before they are sent.

With a wrong name or type, clients would misread the bytes; with a wrong number of rows, they would get the rows of
other clients. The checks look at names, shapes and types of arrays, not at their values, except for BYTES.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from models.base import Model, datatype_of, is_of
from models.spec import ModelSpec, TensorSpec
from serving.core.errors import ModelError


def check_batch(model: Model, outputs: object, rows: int) -> None:
    """Raises ModelError if the outputs of a batch of this many rows are not as declared."""
    check_rows(outputs, rows)
    if not model.finishes:  # outputs that `finish` still converts are checked after it
        check_declared(outputs, model.spec.outputs)


def check_rows(outputs: object, rows: int) -> None:
    for name, array in _by_name(outputs).items():
        shape = _array(name, array).shape
        if shape[:1] != (rows,):
            raise ModelError(f"the model returned shape {list(shape)} for output {name!r} of {rows} row(s)")


def check_declared(outputs: object, declared: Sequence[TensorSpec]) -> None:
    found = _by_name(outputs)
    for tensor in declared:
        if tensor.name not in found:
            raise ModelError(f"the model returned no output {tensor.name!r}")
        array = _array(tensor.name, found[tensor.name])
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
    """Raises ModelError if one answer of a generation is not as declared. It has a batch dimension only if the model is
    batched."""
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
