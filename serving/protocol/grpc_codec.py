"""Encodes and decodes ModelInfer messages, with the same layouts and checks as HTTP.

Like an HTTP body, a request is a head and raw tensors: clients write the fields in the order of their numbers, so
everything but the raw contents comes first. `split` finds the raw contents without protobuf's Python classes. If the
layout of a head is cached (by its bytes, without the id), a request needs only one view per tensor. Reading and
answering 4 KB then takes 4 microseconds instead of 12, less than bare protobuf without any checks:
`python -m benchmarks.bench_grpc_codec`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from serving.protocol.errors import BadMessage, BadOutput, BadTensor
from serving.protocol.grpc_pieces import (
    MAX_FIELDS,
    field,
    in_order,
    pieces,
    read_varint,
    take_apart,
    too_many_fields,
    varint,
)
from serving.protocol.joining import AT_ONCE_ELEMENTS, joined
from serving.protocol.json_codec import LARGE_BYTES, array_of
from serving.protocol.layout import TensorLayout
from serving.protocol.messages import RequestedOutput, Tensor
from serving.protocol.objects import empty
from serving.protocol.pb import decode
from serving.protocol.pb import message as message_class
from serving.protocol.reply import ReplyFormat, fitting
from serving.protocol.spans import span_of
from serving.protocol.tensors import (
    SIZES,
    check_datatype,
    check_size,
    element_count,
    numpy_dtype,
    object_array,
    read_tensor,
    write_tensor,
)

# A field's first byte: its number times 8, plus 2 for "a length follows". All fields of both messages are of that kind.
_ID, _RAW_INPUT = 0x1A, 0x3A
_OUTPUT, _RAW_OUTPUT = b"\x2a", b"\x32"
_IN_STREAM, _STREAM_ERROR = b"\x12", b"\x0a"
_MAX_HEADS = 256
_COUNTED = range(MAX_FIELDS + 1)
# Which field of InferTensorContents holds values of a datatype.
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip

Span = tuple[int, int]  # where a raw tensor starts in the message, and how many bytes it has


class Split(NamedTuple):
    """A split request. `head`: all fields but the id and the raw contents, which lie at `raws` in `message`."""

    head: bytes
    id: str
    raws: list[Span]
    message: bytes


def split(message: bytes) -> Split:
    """Splits a request into head, id and raw contents. Raises BadMessage for bytes that are no ModelInferRequest."""
    try:
        found = _split_in_order(message)
        if found is None:
            found = _split_in_order(in_order(message))
    except (IndexError, UnicodeError):
        found = None
    if found is None:
        raise BadMessage("not a ModelInferRequest")
    return found


def _split_in_order(message: bytes) -> Split | None:
    """Splits a request whose fields are in order. Returns None if a field is out of order or unknown or an id is given
    twice; these rare messages take the general path. Raises BadMessage for more than MAX_FIELDS."""
    position, end, last = 0, len(message), 0
    id, id_start, id_end = "", 0, 0
    for _ in _COUNTED:
        if position >= end or (tag := message[position]) == _RAW_INPUT:
            break
        if tag & 7 != 2 or not last <= tag < _RAW_INPUT or (tag == _ID and id_end):
            return None
        last = tag
        start = position
        length = message[position + 1]
        position += 2
        if length > 127:
            length, position = read_varint(message, position - 1)
        position += length
        if tag == _ID:
            id, id_start, id_end = message[position - length : position].decode(), start, position
    else:
        raise too_many_fields()
    head_end = position
    raws: list[Span] = []
    while position < end:
        if message[position] != _RAW_INPUT:
            return None
        if len(raws) == MAX_FIELDS:
            raise too_many_fields()
        length = message[position + 1]
        position += 2
        if length > 127:
            length, position = read_varint(message, position - 1)
        raws.append((position, length))
        position += length
    if position != end:
        return None
    head = message[:id_start] + message[id_end:head_end] if id_end else message[:head_end]
    return Split(head, id, raws, message)


class GrpcLayout:
    """The checked head of a request. `is_reusable`: it holds no values, so it serves every request with the same head.
    `only_view`: name, shape, dtype and bytes of the only input if that is a view of raw contents, else None."""

    __slots__ = (
        "_raw", "_readers", "inputs", "is_reusable", "model_name", "model_version", "only_view", "outputs",
        "parameters", "shared",
    )  # fmt: skip

    def __init__(self, head: bytes) -> None:
        """Raises BadMessage or BadTensor."""
        contents: list[list[bytes]] | None = None
        if len(head) > LARGE_BYTES:
            head, contents = take_apart(head)
        request = decode("ModelInferRequest", head)
        self.model_name: str = request.model_name
        self.model_version: str = request.model_version
        if not request.inputs:
            raise BadMessage("at least one input is needed", path="inputs")
        self.inputs = tuple(
            _lay_out_input(tensor, f"inputs[{index}]", None if contents is None else contents[index])
            for index, tensor in enumerate(request.inputs)
        )
        self.outputs = tuple(_requested(output, index) for index, output in enumerate(request.outputs))
        # Answers are always raw: tritonclient reads no other form reliably.
        self.parameters = parameters_of(request.parameters) | {"binary_data_output": True}
        self.is_reusable = all(tensor.is_binary for tensor in self.inputs)
        self.shared = tuple(tensor for tensor in self.inputs if tensor.span)
        self._raw = tuple(tensor for tensor in self.inputs if not tensor.span)
        self._readers = tuple(
            (tensor.name, tensor.shape, numpy_dtype(tensor.datatype) if tensor.is_view else None, tensor.size, tensor)
            for tensor in self._raw
        )
        self.only_view: tuple[str, tuple[int, ...], np.dtype, int] | None = None
        if self.is_reusable and len(self.inputs) == len(self._readers) == 1:
            name, shape, dtype, size, _ = self._readers[0]
            self.only_view = None if dtype is None else (name, shape, dtype, size)

    def read(self, request: Split) -> dict[str, Tensor]:
        """Returns the inputs by name without those in shared memory, as views into the message where possible. Raises
        BadMessage or BadTensor."""
        values: dict[str, Tensor] = {}
        if not request.raws:
            for tensor in self._raw:
                if tensor.is_binary and 0 not in tensor.shape:
                    raise BadTensor("neither contents nor raw_input_contents is given", path=tensor.path)
                values[tensor.name] = tensor.read(b"", 0)
            return values
        self._check_raws(request.raws)
        message = request.message
        for (start, length), (name, shape, dtype, size, tensor) in zip(request.raws, self._readers, strict=True):
            if dtype is not None and length == size:
                values[name] = np.ndarray(shape, dtype, message, start)
            else:
                check_size(tensor.datatype, element_count(shape, tensor.path), length, tensor.path)
                values[name] = read_tensor(message, start, length, tensor.datatype, shape, tensor.path)
        return values

    def _check_raws(self, raws: list[Span]) -> None:
        if not self.is_reusable:
            raise BadMessage("contents and raw_input_contents must not be mixed", path="raw_input_contents")
        if len(raws) != len(self._raw):
            shared = " that are not in shared memory" if self.shared else ""
            raise BadMessage(f"{len(raws)} entries for {len(self._raw)} inputs{shared}", path="raw_input_contents")


def parameters_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a map of InferParameter as plain values; parameters without a value are left out."""
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in parameters.items())
    return {name: getattr(value, choice) for name, value, choice in chosen if choice}


def _lay_out_input(tensor: Any, path: str, contents: list[bytes] | None) -> TensorLayout:
    """Checks one input. contents: the typed contents if they were cut out of a large message, else None."""
    check_datatype(tensor.datatype, path)
    shape = tuple(tensor.shape)
    count = element_count(shape, path)
    if span := span_of(parameters_of(tensor.parameters), path):
        if tensor.HasField("contents"):
            raise BadTensor("both contents and shared_memory_region are given", path=path)
        check_size(tensor.datatype, count, span.byte_size, path)
        return TensorLayout(path, tensor.name, tensor.datatype, shape, span=span)
    size = count * SIZES.get(tensor.datatype, 0)
    if not tensor.HasField("contents"):
        return TensorLayout(path, tensor.name, tensor.datatype, shape, size=size)
    later = partial(_read_contents, contents or tensor.contents, tensor.datatype, shape, count, f"{path}.contents")
    return TensorLayout(path, tensor.name, tensor.datatype, shape, later=later)


def _read_contents(contents: Any, datatype: str, shape: tuple[int, ...], count: int, path: str) -> Tensor:
    """Reads typed contents as a tensor. contents: an InferTensorContents, or a list of encoded ones. Raises
    BadTensor."""
    wanted = _CONTENTS.get(datatype)
    if wanted is None:
        raise BadTensor(f"{datatype} has no typed form, send it in raw_input_contents", path=path)
    if not isinstance(contents, list):
        return _values(contents, datatype, wanted, path, count).reshape(shape)
    flat = empty(min(count, sum(map(len, contents))), numpy_dtype(datatype))  # each has a byte at least
    found = 0
    for piece in pieces(contents):
        part = _values(decode("InferTensorContents", piece), datatype, wanted, path)
        flat[found : found + len(part)] = part[: max(0, len(flat) - found)]
        found += len(part)
    _check_count(found, count, f"{path}.{wanted}")
    return flat.reshape(shape)


def _values(contents: Any, datatype: str, wanted: str, path: str, count: int | None = None) -> Tensor:
    """Returns the values as a one-dimensional array. count: the required number of values, None if not known here."""
    for name in (found.name for found, _ in contents.ListFields() if found.name != wanted):
        raise BadTensor(f"{datatype} belongs into {wanted}", path=f"{path}.{name}")
    given = list(getattr(contents, wanted))
    if count is not None:
        _check_count(len(given), count, f"{path}.{wanted}")
    shape = (len(given),)
    return object_array(given, shape) if datatype == "BYTES" else array_of(given, datatype, shape, path)


def _check_count(given: int, count: int, path: str) -> None:
    if given != count:
        raise BadTensor(f"{given} elements, but the shape needs {count}", path=path)


def _requested(output: Any, index: int) -> RequestedOutput:
    path = f"outputs[{index}].parameters"
    parameters = parameters_of(output.parameters)
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise BadMessage("must be a number of classes", path=f"{path}.classification")
    return RequestedOutput(output.name, True, classes, span_of(parameters, f"outputs[{index}]"))


class _Head(NamedTuple):
    """The head of an answer with outputs of certain shapes. `lengths`: tag and length in front of each raw output,
    empty if its size varies (BYTES). `join`: concatenates all parts."""

    head: bytes
    lengths: list[bytes]
    join: Callable[[Iterable[Any]], bytes]


class GrpcReplyWriter:
    """Writes ModelInferResponse messages of one model; caches the part that depends on shapes alone."""

    def __init__(self, model_name: str, model_version: str) -> None:
        response = message_class("ModelInferResponse")(model_name=model_name, model_version=model_version)
        self._opening: bytes = response.SerializeToString()
        self._heads: dict[tuple[ReplyFormat, tuple[tuple[int, ...], ...]], _Head] = {}

    def write(self, form: ReplyFormat, values: Mapping[str, Tensor], id: str = "") -> bytes:
        """Returns the encoded response. The caller has already turned classes into BYTES. Raises BadOutput if the
        values do not match the declared outputs."""
        try:
            arrays = [values[name] for name in form.names]
        except KeyError as error:
            raise BadOutput(f"the model returned no output {error.args[0]!r}") from None
        shapes = tuple([array.shape for array in arrays])
        found = self._heads.get((form, shapes))
        if found is None:
            found = self._head(form, shapes)
        head, lengths, join = found
        parts: list[Any] = [head]  # bytes and arrays: objects with the buffer protocol
        if id:
            parts.append(field(b"\x1a", id.encode()))
        for index, array in enumerate(arrays):
            if array.dtype is form.dtypes[index] and array.flags.c_contiguous and lengths[index]:
                parts += (lengths[index], array)
            elif form.outputs[index].span:
                parts += (_RAW_OUTPUT, b"\0")  # an empty entry: clients match raw outputs by their index
            else:
                raw = write_tensor(fitting(array, form.outputs[index]))
                size = len(raw) if isinstance(raw, bytes) else raw.nbytes
                parts += (_RAW_OUTPUT, varint(size), raw)
        return join(parts)

    def _head(self, form: ReplyFormat, shapes: tuple[tuple[int, ...], ...]) -> _Head:
        parts, lengths = [self._opening], []
        output_class = message_class("ModelInferResponse.InferOutputTensor")
        for output, shape in zip(form.outputs, shapes, strict=True):
            described = output_class(name=output.name, datatype=output.datatype, shape=shape)
            parts.append(field(_OUTPUT, described.SerializeToString()))
            size = 0 if output.span else SIZES.get(output.datatype, 0) * int(np.prod(shape, dtype=np.int64))
            lengths.append(_RAW_OUTPUT + varint(size) if size and output.datatype != "BF16" else b"")
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        elements = sum(prod(shape) for shape in shapes)
        join: Callable[[Iterable[Any]], bytes] = b"".join if elements <= AT_ONCE_ELEMENTS else joined
        found = self._heads[form, shapes] = _Head(b"".join(parts), lengths, join)
        return found


def _final(is_final: bool) -> bytes:
    response = message_class("ModelInferResponse")()
    response.parameters["triton_final_response"].bool_param = is_final
    encoded: bytes = response.SerializeToString()
    return encoded


_FINAL = {is_final: _final(is_final) for is_final in (False, True)}


def in_stream(response: bytes, *, is_final: bool = True) -> bytes:
    """Returns a ModelStreamInferResponse around a ModelInferResponse. It always says whether it is the final answer to
    its request: without that, perf_analyzer counts only the first answer."""
    return field(_IN_STREAM, _FINAL[is_final] + response)


def error_in_stream(text: str, model_name: str, id: str) -> bytes:
    """Returns a ModelStreamInferResponse that reports an error; the stream goes on."""
    response = message_class("ModelInferResponse")(model_name=model_name, id=id).SerializeToString()
    return field(_STREAM_ERROR, text.encode(errors="replace")) + in_stream(response)
