"""The JSON half of the protocol: message heads into typed values, and tensors that travel as JSON numbers.

Strict JSON is read by msgspec. `NaN` and `Infinity`, which are no JSON but which Python's json module (and so
tritonclient) writes, send a message down a slower path instead of being refused; answers carry them the same way.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from math import prod
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.messages import Tensor
from serving.protocol.tensors import MAX_RANK, NOT_IN_JSON, as_bytes, numpy_dtype, object_array

# What the decoders raise for bytes that no honest client sends; RecursionError is their answer to deep nesting.
_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError)
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_BRACKETS = re.compile(rb"[\s\[]*")


class InputHead(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: msgspec.Raw = msgspec.Raw()


class OutputHead(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class RequestHead(msgspec.Struct):
    inputs: list[InputHead]
    outputs: list[OutputHead] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class ResponseHead(msgspec.Struct):
    """What a client reads: `InputHead` has just the fields of an output with values."""

    model_name: str
    outputs: list[InputHead]
    model_version: str = ""
    id: str | None = None


_REQUEST = msgspec.json.Decoder(RequestHead)
_RESPONSE = msgspec.json.Decoder(ResponseHead)


def decode_request_head(head: bytes) -> RequestHead:
    message: RequestHead = _decode(head, _REQUEST, "inputs")
    return message


def decode_response_head(head: bytes) -> ResponseHead:
    message: ResponseHead = _decode(head, _RESPONSE, "outputs")
    return message


def _decode(head: bytes, decoder: msgspec.json.Decoder[Any], tensors: str) -> Any:
    try:
        return decoder.decode(head)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except _MALFORMED as error:
        if b"NaN" in head or b"Infinity" in head:
            return _decode_loosely(head, decoder.type, tensors)
        raise _explained(error) from None


def _decode_loosely(head: bytes, wanted: Any, tensors: str) -> Any:
    """The same through Python's json, which takes NaN; each tensor's data stays text for `read_values`."""
    try:
        document = json.loads(head)
        data = [tensor.pop("data", None) for tensor in document[tensors]]
        message = msgspec.convert(document, wanted)
        for tensor, values in zip(getattr(message, tensors), data, strict=True):
            if values is not None:
                tensor.data = msgspec.Raw(json.dumps(values).encode())
    except (*_MALFORMED, TypeError, AttributeError, LookupError) as error:
        raise _explained(error) from None
    return message


def read_values(data: bytes, datatype: str, shape: tuple[int, ...], path: str) -> Tensor:
    """A tensor from JSON: one flat list in row-major order, or lists nested as the shape says."""
    if datatype in NOT_IN_JSON:
        raise BadTensor(f"{datatype} cannot travel as JSON, send it as binary data", path=path)
    leading = _BRACKETS.match(data[:1024])
    depth = leading.group().count(b"[") if leading else 0
    if depth == 0 or depth > MAX_RANK or depth not in (1, len(shape)):
        raise BadTensor(f"data must be a flat list or nested {len(shape)} deep like the shape", path=f"{path}.data")
    values = _lists(data, datatype, depth, path)
    return array_of(_flattened(values, depth, shape, path), datatype, shape, path)


def _lists(data: bytes, datatype: str, depth: int, path: str) -> list[Any]:
    decoder = _list_decoder(datatype, depth)
    try:
        lists: list[Any] = decoder.decode(data)
    except _MALFORMED as error:
        if isinstance(error, msgspec.ValidationError) or not (b"NaN" in data or b"Infinity" in data):
            raise _explained(error, f"{path}.data", BadTensor) from None
        try:
            lists = msgspec.convert(json.loads(data), decoder.type)
        except _MALFORMED as loose:
            raise _explained(loose, f"{path}.data", BadTensor) from None
    return lists


@cache
def _list_decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    wanted: Any = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}.get(datatype)
    if wanted is None:
        limits = np.iinfo(numpy_dtype(datatype))  # type: ignore[type-var]
        # msgspec compares within 64 signed bits; what exceeds UINT64 numpy refuses when it makes the array.
        wanted = Annotated[int, msgspec.Meta(ge=int(limits.min), le=min(int(limits.max), 2**63 - 1))]
        if datatype == "UINT64":
            wanted = Annotated[int, msgspec.Meta(ge=0)]
    for _ in range(depth):
        wanted = list[wanted]
    return msgspec.json.Decoder(wanted)


def _flattened(values: list[Any], depth: int, shape: tuple[int, ...], path: str) -> list[Any]:
    """The elements in row-major order, after checking that there are as many as the shape says, at every level."""
    if depth == 1:
        if len(values) != prod(shape):
            raise BadTensor(f"{len(values)} elements, but the shape needs {prod(shape)}", path=f"{path}.data")
        return values
    level = [values]
    for size in shape[:depth]:
        for part in level:
            if len(part) != size:
                raise BadTensor(f"a list of {len(part)} where the shape says {size}", path=f"{path}.data")
        level = list(chain.from_iterable(level))
    return level


def array_of(values: Sequence[Any], datatype: str, shape: tuple[int, ...], path: str) -> Tensor:
    """A tensor from so many values as its shape has elements; BYTES from text."""
    if datatype == "BYTES":
        try:
            return object_array([value.encode() for value in values], shape)
        except UnicodeEncodeError as error:
            raise BadTensor(f"not valid text: {error.reason}", path=f"{path}.data") from None
    try:
        with np.errstate(over="raise"):
            return np.array(values, dtype=numpy_dtype(datatype)).reshape(shape)
    except (OverflowError, FloatingPointError):
        raise BadTensor(f"a number does not fit into {datatype}", path=f"{path}.data") from None


def write_values(array: Tensor, datatype: str, path: str) -> bytes:
    """A tensor as one flat JSON list."""
    if datatype in NOT_IN_JSON:
        raise BadTensor(f"{datatype} cannot travel as JSON, ask for binary data", path=path)
    flat = array.ravel()
    if datatype == "BYTES":
        try:
            return orjson.dumps([as_bytes(element).decode() for element in flat.tolist()])
        except UnicodeDecodeError:
            raise BadTensor("the bytes are not valid UTF-8, ask for binary data", path=path) from None
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return json.dumps(flat.tolist()).encode()
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    return orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY)


def _explained(error: BaseException, path: str = "", kind: type[BadMessage] = BadMessage) -> BadMessage:
    """The decoder's complaint in our words: the field's path first."""
    if isinstance(error, RecursionError):
        return kind("the JSON is nested too deeply", path=path)
    text = str(error).replace("`", "")
    if isinstance(error, msgspec.ValidationError) and (found := _AT.search(str(error))):
        text = str(error)[: found.start()].replace("`", "")
        inner = found.group(1)
        separator = "." if path and inner and not inner.startswith("[") else ""
        return kind(text[:1].lower() + text[1:], path=f"{path}{separator}{inner}")
    if isinstance(error, msgspec.ValidationError):
        return kind(text[:1].lower() + text[1:], path=path)
    if isinstance(error, msgspec.DecodeError | UnicodeError | json.JSONDecodeError):
        return kind(f"not valid JSON: {text[:200]}", path=path)
    return kind("not the JSON of an Open Inference message", path=path)
