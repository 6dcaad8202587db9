"""The JSON half of the protocol: decodes message heads into typed values, and reads and writes tensors as JSON numbers.

msgspec reads strict JSON. `NaN` and `Infinity` are not JSON, but Python's json module (and so tritonclient) writes
them: a message with them takes a slower path instead of being refused, and answers carry them the same way. Long values
are read and written in pieces, so that other threads are not blocked: see `json_pieces.py`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from math import isinf, prod
from typing import Annotated, Any

import msgspec
import numpy as np
import orjson

from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.joining import joined
from serving.protocol.json_hollow import take_apart
from serving.protocol.json_pieces import PIECE_BYTES, has_numbers_beyond_json, leaves, pieces
from serving.protocol.messages import Tensor
from serving.protocol.objects import empty
from serving.protocol.tensors import MAX_RANK, NOT_IN_JSON, as_bytes, numpy_dtype, object_array

# The errors that the decoders raise for malformed input; they raise RecursionError for deep nesting.
_MALFORMED = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, OverflowError)
LARGE_BYTES = 1 << 16  # a longer head is read in several steps, in a thread beside the event loop
PIECE_ELEMENTS = 1 << 14
_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_BRACKETS = re.compile(rb"[\s\[]{0,1024}")


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
    """The head of a response, as a client reads it. `InputHead` has the fields of an output with values."""

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
    if len(head) > LARGE_BYTES:
        return _decode_apart(head, decoder, tensors)
    try:
        return decoder.decode(head)
    except msgspec.ValidationError as error:
        raise _explained(error) from None
    except _MALFORMED as error:
        if has_numbers_beyond_json(head):
            return _decode_apart(head, decoder, tensors)
        raise _explained(error) from None


def _decode_apart(head: bytes, decoder: msgspec.json.Decoder[Any], tensors: str) -> Any:
    """Decodes a head without decoding the values of its tensors: `data` stays raw JSON. Allows NaN and Infinity. Raises
    BadMessage."""
    try:
        rest, data = take_apart(head, tensors)
        if has_numbers_beyond_json(rest):
            document = json.loads(rest.decode())
            # Python's json accepts lone surrogates, which are not valid text: this raises UnicodeEncodeError for them.
            json.dumps(document, ensure_ascii=False).encode()
            for tensor in document[tensors]:
                tensor.pop("data", None)
            message = msgspec.convert(document, decoder.type)
        else:
            message = decoder.decode(rest)
    except (*_MALFORMED, TypeError, AttributeError, LookupError) as error:
        raise _explained(error) from None
    for tensor, values in zip(getattr(message, tensors), data, strict=True):
        tensor.data = msgspec.Raw() if values is None else msgspec.Raw(values)
    return message


def read_values(data: bytes | memoryview, datatype: str, shape: tuple[int, ...], path: str) -> Tensor:
    """Reads a tensor from a JSON list in row-major order, flat or nested. As in Triton, only the number of elements has
    to fit the shape, not the nesting. Raises BadTensor."""
    if datatype in NOT_IN_JSON:
        raise BadTensor(f"{datatype} cannot travel as JSON, send it as binary data", path=path)
    depth = _depth(data)
    if depth == 0 or depth > MAX_RANK:
        raise BadTensor(f"data must be a list, flat or nested, at most {MAX_RANK} deep", path=f"{path}.data")
    count = prod(shape)
    if len(data) <= PIECE_BYTES:
        elements = _elements(data, datatype, depth, path, 0)
        _check_count(len(elements), count, path)
        return array_of(elements, datatype, shape, path)
    # Every element but the last has a comma, so the text's length bounds the number of elements: a larger shape is
    # wrong, and is not allocated.
    flat = empty(min(count, (len(data) + 1) // 2), numpy_dtype(datatype))
    found = 0
    for part in _parts(data, datatype, depth, path):
        flat[found : found + len(part)] = part[: max(0, len(flat) - found)]
        found += len(part)
    _check_count(found, count, path)
    return flat.reshape(shape)


def read_flat(data: bytes | memoryview, datatype: str, path: str) -> Tensor:
    """Reads a JSON value as a tensor of one dimension: a list of any number of elements, nested in any way, or a single
    element."""
    if data[:1] == b"{":
        raise BadTensor("an object is no value of a tensor", path=f"{path}.data")
    depth = _depth(data)
    if depth == 0:
        values = _elements(joined([b"[", data, b"]"]), datatype, 1, path, 0)
        return array_of(values, datatype, (1,), path)
    # The decoder for one level refuses deeper lists, which then are read without a type for each level.
    parts = list(_parts(data, datatype, depth if depth <= MAX_RANK else 1, path))
    flat = empty(sum(map(len, parts)), numpy_dtype(datatype))
    start = 0
    for part in parts:
        flat[start : start + len(part)] = part
        start += len(part)
    return flat


def _depth(data: bytes | memoryview) -> int:
    leading = _BRACKETS.match(data)
    return leading.group().count(b"[") if leading else 0


def _parts(data: bytes | memoryview, datatype: str, depth: int, path: str) -> Iterator[Tensor]:
    """Yields the elements of a list in parts, each an array of one dimension."""
    before = 0
    for piece in pieces(data):
        values = _elements(piece, datatype, depth, path, before)
        before += len(values)
        yield array_of(values, datatype, (len(values),), path)


def _check_count(found: int, count: int, path: str) -> None:
    if found != count:
        raise BadTensor(f"{found} elements, but the shape needs {count}", path=f"{path}.data")


def _elements(piece: bytes | memoryview, datatype: str, depth: int, path: str, before: int) -> list[Any]:
    """Returns the elements of a list. before: number of elements in earlier pieces, for error messages. Raises
    BadTensor."""
    text = piece
    if depth > 1 and datatype != "BYTES":
        # Building many short lists costs more than their numbers, so inner brackets are dropped. Empty inner lists give
        # invalid JSON, which takes the slower path below.
        text, depth = b"[" + bytes(piece).translate(None, b"[]") + b"]", 1
    try:
        lists: list[Any] = _list_decoder(datatype, depth).decode(text)
    except _MALFORMED as error:
        try:
            return _elements_loosely(bytes(piece), datatype)
        except _MALFORMED as loose:
            reason = error if isinstance(error, msgspec.ValidationError) else loose
            if before:
                complaint = str(_explained(reason, "data"))
                raise BadTensor(f"behind element {before - 1}, {complaint}", path=f"{path}.data") from None
            raise _explained(reason, f"{path}.data", BadTensor) from None
    for _ in range(depth - 1):
        lists = list(chain.from_iterable(lists))
    return lists


def _elements_loosely(piece: bytes, datatype: str) -> list[Any]:
    """Returns the elements of a list with NaN, Infinity or irregular nesting. Raises one of _MALFORMED."""
    flat = list(leaves(json.loads(piece.decode())))
    elements: list[Any] = msgspec.convert(flat, _list_decoder(datatype, 1).type)
    # A number too large for FP64 is an error, not infinity, as in strict JSON.
    if datatype in ("FP32", "FP64") and sum(map(isinf, elements)) != piece.count(b"Infinity"):
        raise OverflowError
    return elements


@cache
def _list_decoder(datatype: str, depth: int) -> msgspec.json.Decoder[Any]:
    wanted: Any = {"BOOL": bool, "BYTES": str, "FP32": float, "FP64": float}.get(datatype)
    if wanted is None:
        limits = np.iinfo(numpy_dtype(datatype))  # type: ignore[type-var]
        # msgspec compares signed 64-bit numbers only; numpy refuses numbers beyond UINT64 when it builds the array.
        wanted = Annotated[int, msgspec.Meta(ge=int(limits.min), le=min(int(limits.max), 2**63 - 1))]
        if datatype == "UINT64":
            wanted = Annotated[int, msgspec.Meta(ge=0)]
    for _ in range(depth):
        wanted = list[wanted]
    return msgspec.json.Decoder(wanted)


def array_of(values: Sequence[Any], datatype: str, shape: tuple[int, ...], path: str) -> Tensor:
    """Builds a tensor from as many values as its shape has elements; BYTES from text. Raises BadTensor."""
    if datatype == "BYTES":
        try:
            return object_array([value.encode() for value in values], shape)
        except UnicodeEncodeError as error:
            raise BadTensor(f"not valid text: {error.reason}", path=f"{path}.data") from None
    try:
        # A number too large for FP32 becomes infinity, as in Triton.
        with np.errstate(over="ignore"):
            return np.array(values, dtype=numpy_dtype(datatype)).reshape(shape)
    except OverflowError:
        raise BadTensor(f"a number does not fit into {datatype}", path=f"{path}.data") from None


def write_values(array: Tensor, datatype: str, path: str) -> bytes:
    """Writes a tensor as one flat JSON list. Raises BadTensor."""
    return joined(written_values(array, datatype, path))


def written_values(array: Tensor, datatype: str, path: str) -> Iterator[bytes]:
    """Writes a tensor as one flat JSON list and yields it in parts, each written when asked for. Raises BadTensor."""
    if datatype in NOT_IN_JSON:
        raise BadTensor(f"{datatype} cannot travel as JSON, ask for binary data", path=path)
    flat = array.ravel()
    if flat.size <= PIECE_ELEMENTS:
        yield _list(flat, datatype, path)
        return
    opening = b"["
    for start in range(0, flat.size, PIECE_ELEMENTS):
        yield opening
        yield _list(flat[start : start + PIECE_ELEMENTS], datatype, path)[1:-1]
        opening = b","
    yield b"]"


def _list(flat: Tensor, datatype: str, path: str) -> bytes:
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
    """Converts a decoder's error into a BadMessage (or `kind`) whose text begins with the field's path."""
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
    if isinstance(error, OverflowError):
        return kind("a number is out of range", path=path)
    if isinstance(error, UnicodeEncodeError):
        return kind(f"not valid text: {error.reason}", path=path)
    if isinstance(error, msgspec.DecodeError | UnicodeError | json.JSONDecodeError):
        return kind(f"not valid JSON: {text[:200]}", path=path)
    return kind("not the JSON of an Open Inference message", path=path)
