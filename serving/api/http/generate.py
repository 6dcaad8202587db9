"""Triton's generate extension: request and answer are flat JSON objects with one field per tensor, easy to send with
curl. A request has one row. Fields that name no input are parameters of the request."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import orjson

from serving.api.http.asgi import json_object
from serving.api.served import ServedModel
from serving.api.terms import Terms, asked
from serving.protocol.errors import BadMessage, BadOutput, BadTensor
from serving.protocol.json_codec import LARGE_BYTES, read_flat, read_values, write_values
from serving.protocol.json_fields import take_fields
from serving.protocol.json_pieces import leaves
from serving.protocol.messages import Tensor, TensorDescription
from serving.protocol.reply import OutputFormat, fitting
from serving.protocol.tensors import NOT_IN_JSON, element_count


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest(Terms):
    """One row of inputs with the terms and the id of the request."""

    payload: dict[str, Tensor]
    id: str


def read_request(model: ServedModel, body: bytes) -> GenerateRequest:
    """Reads a request. Raises BadMessage or BadTensor.

    The fields `id` and `parameters` have their meaning in the protocol only if no input has that name."""
    fields = _read_fields(model, body)
    payload = {
        tensor.name: _tensor(tensor, fields) for tensor in model.inputs if tensor.name in fields or not tensor.optional
    }
    others = {name: value for name, value in fields.items() if name not in payload}
    id = others.pop("id", "")
    if not isinstance(id, str):
        raise BadMessage("must be a text", path="id")
    nested = others.pop("parameters", {})
    if not isinstance(nested, dict):
        raise BadMessage("must be an object", path="parameters")
    inputs = ", ".join(repr(tensor.name) for tensor in model.inputs)
    for name, value in others.items():
        _check_parameter(value, name, f"is not an input (the model takes {inputs}); as a parameter it ")
    for name, value in nested.items():
        _check_parameter(value, f"parameters.{name}")
    return GenerateRequest(payload=payload, id=id, **asked(model, others | nested, rows=1))


def _read_fields(model: ServedModel, body: bytes) -> dict[str, Any]:
    """Reads the fields of a body. Of a large one, the values of inputs stay JSON text, as memoryviews."""
    taken = take_fields(body, tuple(tensor.name for tensor in model.inputs)) if len(body) > LARGE_BYTES else None
    return json_object(body) if taken is None else json_object(taken.rest) | taken.values


def _check_parameter(value: object, path: str, what: str = "") -> None:
    if not isinstance(value, bool | int | float | str):
        raise BadMessage(f"{what}must be a number, a text, true or false", path=path[:100])


def _tensor(described: TensorDescription, fields: Mapping[str, Any]) -> Tensor:
    if described.name not in fields:
        raise BadMessage("is missing", path=described.name)
    if described.datatype in NOT_IN_JSON:
        raise BadTensor(f"{described.datatype} cannot travel as JSON; use infer", path=described.name)
    value = fields[described.name]
    if isinstance(value, memoryview):
        return _read_large(described, value)
    flat = list(_leaves(value, described.name))
    shape = _shape(described, len(flat))
    element_count(shape, described.name)
    return read_values(_list(flat), described.datatype, shape, described.name)


def _read_large(described: TensorDescription, value: memoryview) -> Tensor:
    """Reads a value that is still JSON text, in pieces."""
    flat = read_flat(value, described.datatype, described.name)
    shape = _shape(described, len(flat))
    element_count(shape, described.name)
    return flat.reshape(shape)


def _list(values: list[Any]) -> bytes:
    """Returns the values as JSON. NaN and infinities, which orjson writes as null, and integers beyond 64 bits are
    written by Python's json."""
    with suppress(orjson.JSONEncodeError):
        if b"null" not in (data := orjson.dumps(values)):
            return data
    return json.dumps(values).encode()


def _leaves(value: Any, name: str) -> Iterator[Any]:
    """Yields the values of nested lists, or the value itself. Raises BadTensor for an object among them."""
    for leaf in leaves([value]):
        if isinstance(leaf, dict):
            raise BadTensor("an object is no value of a tensor", path=f"{name}.data")
        yield leaf


def _shape(described: TensorDescription, count: int) -> tuple[int, ...]:
    """Returns the shape of one row of `count` values. Of several variable sizes all but the last are 1."""
    row = [max(size, 1) for size in described.row_shape]
    if -1 in described.row_shape:
        last = max(index for index, size in enumerate(described.row_shape) if size == -1)
        row[last] = count // prod(row)
    if prod(row) != count or not count:
        raise BadTensor(f"{count} values do not fit the shape {list(described.row_shape)}", path=described.name)
    return (1, *row) if described.batched else tuple(row)


def write_answer(model: ServedModel, values: Any, id: str) -> bytes:
    """Returns one answer as a JSON object; a tensor of one element becomes that element.

    Raises BadOutput or BadTensor."""
    if not isinstance(values, dict):
        raise BadOutput(f"the model returned a {type(values).__name__}, not its outputs by name")
    head: dict[str, Any] = {"id": id} if id else {}
    head |= {"model_name": model.name, "model_version": model.version}
    parts = [orjson.dumps({name: fact for name, fact in head.items() if name not in values})[1:-1]]
    for described in model.outputs:
        if described.name not in values:
            raise BadOutput(f"the model returned no output {described.name!r}")
        array = fitting(values[described.name], OutputFormat(described.name, described.datatype, False))
        data = write_values(array, described.datatype, f"output {described.name!r}")
        parts.append(orjson.dumps(described.name) + b":" + (data[1:-1] if array.size == 1 else data))
    return b"{" + b",".join(filter(None, parts)) + b"}"
