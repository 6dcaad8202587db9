"""The layout of a request: the offsets of its tensors, decoded once per head and reused for bodies with an equal head.

A body is a JSON head, then the binary tensors in input order. Clients send similar requests, so the head of one request
often equals that of the next byte for byte. Everything that depends on the head alone (parsing, checking sizes) is done
when a `RequestLayout` is built; each further request needs only one view per tensor.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np

from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.json_codec import InputHead, OutputHead, decode_request_head, read_values
from serving.protocol.messages import InferInput, InferRequest, RequestedOutput, Tensor, TensorDescription
from serving.protocol.spans import Span, span_of
from serving.protocol.tensors import (
    SIZES,
    check_datatype,
    check_size,
    element_count,
    numpy_dtype,
    object_array,
    read_tensor,
)

_ndarray = np.ndarray
_NO_VIEW = frozenset({"BYTES", "BOOL"})


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """The layout of one input.

    `values`: the values, if they are known. `later`: decodes values that are part of the head; called after the head
    was checked against the model. `span`: the place in shared memory. Otherwise `offset` and `size` in bytes locate its
    raw data behind the head.
    """

    path: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int = 0
    size: int = 0
    values: Tensor | None = None
    span: Span | None = None
    later: Callable[[], Tensor] | None = None

    @property
    def is_binary(self) -> bool:
        return self.values is None and self.later is None

    @property
    def is_view(self) -> bool:
        return self.is_binary and self.datatype not in _NO_VIEW

    def read(self, body: bytes, head_bytes: int) -> Tensor:
        """Returns the tensor. head_bytes: length of the head in `body`. Raises BadTensor."""
        if self.values is not None:
            return self.values
        if self.later is not None:
            return self.later()
        return read_tensor(body, head_bytes + self.offset, self.size, self.datatype, self.shape, self.path)


class RequestLayout:
    """A checked request without its binary values. `is_reusable`: nothing in it belongs to one request only. `shared`:
    the inputs in shared memory, which the caller reads."""

    __slots__ = ("_others", "_views", "id", "inputs", "is_reusable", "outputs", "parameters", "shared", "tail_bytes")

    def __init__(
        self,
        inputs: Iterable[TensorLayout],
        outputs: tuple[RequestedOutput, ...],
        tail_bytes: int,
        id: str = "",
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = outputs
        self.tail_bytes = tail_bytes
        self.id = id
        self.parameters: Mapping[str, object] = parameters or {}
        self.is_reusable = not id and all(tensor.is_binary for tensor in self.inputs)
        self.shared = tuple(tensor for tensor in self.inputs if tensor.span)
        here = [tensor for tensor in self.inputs if not tensor.span]
        self._views = tuple((t.name, t.shape, numpy_dtype(t.datatype), t.offset) for t in here if t.is_view)
        self._others = tuple(tensor for tensor in here if not tensor.is_view)

    def read(self, body: bytes, head_bytes: int) -> dict[str, Tensor]:
        """Returns the inputs by name without those in shared memory, as views into `body` where possible. The first
        `head_bytes` of `body` are not read again. Raises BadMessage."""
        if len(body) != head_bytes + self.tail_bytes:
            raise BadMessage(
                f"the body has {len(body)} bytes, but its head and the binary_data_size of its inputs add up to "
                f"{head_bytes + self.tail_bytes}"
            )
        values: dict[str, Tensor] = {}
        for name, shape, dtype, offset in self._views:
            values[name] = _ndarray(shape, dtype, body, head_bytes + offset)
        for tensor in self._others:
            values[tensor.name] = tensor.read(body, head_bytes)
        return values

    def message(self, body: bytes, head_bytes: int) -> InferRequest:
        """Returns the whole request as plain values. Raises BadMessage."""
        values = self.read(body, head_bytes)
        inputs = (InferInput(t.name, t.datatype, values[t.name], binary=t.is_binary) for t in self.inputs)
        return InferRequest(tuple(inputs), self.outputs, self.id, self.parameters)


def lay_out(head: bytes) -> RequestLayout:
    """Reads and checks a head, which is only the JSON part of a body. Raises BadMessage."""
    message = decode_request_head(head)
    if not message.inputs:
        raise BadMessage("at least one input is needed", path="inputs")
    inputs: list[TensorLayout] = []
    seen: set[str] = set()
    offset = 0
    for index, tensor in enumerate(message.inputs):
        path = f"inputs[{index}]"
        if tensor.name in seen:
            raise BadMessage(f"input {tensor.name!r} is given twice", path=path)
        seen.add(tensor.name)
        inputs.append(_lay_out_tensor(tensor, path, offset))
        offset += inputs[-1].size
    parameters = message.parameters or {}
    outputs = _requested(message.outputs or (), parameters.get("binary_data_output", False))
    return RequestLayout(inputs, outputs, offset, message.id or "", parameters)


def lay_out_raw(only: TensorDescription, body: bytes) -> RequestLayout:
    """Returns the layout of a body that is only one row of the only input's data; its length decides the shape. Raises
    BadTensor."""
    path = f"input {only.name!r}"
    body_bytes = len(body)
    shape = [*only.row_shape] if not only.batched else [1, *only.row_shape]
    unknown = [index for index, size in enumerate(shape) if size < 0]
    if len(unknown) > 1:
        raise BadTensor("a raw binary request needs an input with at most one variable dimension", path=path)
    if only.datatype == "BYTES":
        for index in unknown:
            shape[index] = 1
        if prod(shape) != 1:
            raise BadTensor("a raw binary request can carry only one BYTES element", path=path)
        # The whole body is the element, without a length in front.
        element = object_array([body], tuple(shape))
        return RequestLayout([TensorLayout(path, only.name, "BYTES", tuple(shape), values=element)], (), body_bytes)
    row_bytes = SIZES[only.datatype] * prod(size for size in shape if size >= 0)
    for index in unknown:
        if body_bytes % row_bytes:
            raise BadTensor(f"{body_bytes} bytes of data, not a multiple of {row_bytes}", path=path)
        shape[index] = body_bytes // row_bytes
    check_size(only.datatype, prod(shape), body_bytes, path)
    return RequestLayout([TensorLayout(path, only.name, only.datatype, tuple(shape), 0, body_bytes)], (), body_bytes)


def _lay_out_tensor(tensor: InputHead, path: str, offset: int) -> TensorLayout:
    check_datatype(tensor.datatype, path)
    shape = tuple(tensor.shape)
    count = element_count(shape, path)
    size = binary_data_size(tensor.parameters, path)
    data = memoryview(tensor.data)
    if span := span_of(tensor.parameters, path):
        if data:
            raise BadTensor("both data and shared_memory_region are given", path=path)
        check_size(tensor.datatype, count, span.byte_size, path)
        return TensorLayout(path, tensor.name, tensor.datatype, shape, span=span)
    if size is None:
        if not data:
            raise BadTensor("neither data nor binary_data_size is given", path=path)
        later = partial(read_values, data, tensor.datatype, shape, path)
        return TensorLayout(path, tensor.name, tensor.datatype, shape, later=later)
    if data:
        raise BadTensor("both data and binary_data_size are given", path=path)
    check_size(tensor.datatype, count, size, path)
    return TensorLayout(path, tensor.name, tensor.datatype, shape, offset, size)


def binary_data_size(parameters: Mapping[str, object] | None, path: str) -> int | None:
    """Returns the size of a tensor's binary data in bytes, None if it has none. Raises BadTensor."""
    size = parameters.get("binary_data_size") if parameters else None
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise BadTensor("must be a number of bytes", path=f"{path}.parameters.binary_data_size")
    return size


def _requested(heads: Iterable[OutputHead], default: object) -> tuple[RequestedOutput, ...]:
    if type(default) is not bool:
        raise BadMessage("must be true or false", path="parameters.binary_data_output")
    seen: set[str] = set()
    outputs: list[RequestedOutput] = []
    for index, head in enumerate(heads):
        path = f"outputs[{index}]"
        if head.name in seen:
            raise BadMessage(f"output {head.name!r} is requested twice", path=path)
        seen.add(head.name)
        parameters = head.parameters or {}
        binary = parameters.get("binary_data", default)
        if type(binary) is not bool:
            raise BadMessage("must be true or false", path=f"{path}.parameters.binary_data")
        classes = parameters.get("classification", 0)
        if type(classes) is not int or classes < 0:
            raise BadMessage("must be a number of classes", path=f"{path}.parameters.classification")
        outputs.append(RequestedOutput(head.name, binary, classes, span_of(parameters, path)))
    return tuple(outputs)
