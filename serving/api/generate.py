"""Triton's generate extension: a flat JSON object in and out, one field per tensor; for people with curl, and for
models of texts. A request carries one row."""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

import orjson

from serving.api.asgi import json_object
from serving.api.dispatch import ServedModel, whole_number
from serving.protocol.errors import BadMessage, BadOutput, BadTensor
from serving.protocol.json_codec import read_values, write_values
from serving.protocol.messages import Tensor, TensorDescription
from serving.protocol.reply import OutputFormat, fitting
from serving.protocol.tensors import NOT_IN_JSON, element_count

_OURS = ("id", "parameters")


class GenerateRequest(NamedTuple):
    payload: dict[str, Tensor]
    priority: int
    timeout_ns: int | None
    id: str


def read_request(model: ServedModel, body: bytes) -> GenerateRequest:
    """Raises BadMessage or BadTensor."""
    fields = json_object(body)
    names = [tensor.name for tensor in model.inputs]
    for name in fields:
        if name not in names and name not in _OURS:
            known = ", ".join(repr(known) for known in names)
            raise BadMessage(f"unknown field, the model takes {known}", path=name[:100])
    parameters = fields.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadMessage("must be an object", path="parameters")
    id = fields.get("id", "")
    if not isinstance(id, str):
        raise BadMessage("must be a text", path="id")
    payload = {tensor.name: _tensor(tensor, fields) for tensor in model.inputs}
    timeout_ns = whole_number(parameters, "timeout") * 1000 or None
    return GenerateRequest(payload, whole_number(parameters, "priority"), timeout_ns, id)


def _tensor(described: TensorDescription, fields: Mapping[str, Any]) -> Tensor:
    if described.name not in fields:
        raise BadMessage("is missing", path=described.name)
    if described.datatype in NOT_IN_JSON:
        raise BadTensor(f"{described.datatype} cannot travel as JSON; use infer", path=described.name)
    value = fields[described.name]
    flat = list(_leaves(value)) if isinstance(value, list) else [value]
    shape = _shape(described, len(flat))
    element_count(shape, described.name)
    return read_values(orjson.dumps(flat), described.datatype, shape, described.name)


def _leaves(values: list[Any]) -> Iterator[Any]:
    """Without recursion: a client says how deep it nests."""
    stack = [iter(values)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            yield value
        else:
            stack.pop()


def _shape(described: TensorDescription, count: int) -> tuple[int, ...]:
    """One row; of several open sizes the last takes what there is."""
    shape = [max(size, 1) for size in described.shape]
    known = prod(shape)
    if described.shape[1:].count(-1):
        last = max(index for index, size in enumerate(described.shape) if size == -1)
        shape[last] = count // known
    if prod(shape) != count or not count:
        raise BadTensor(f"{count} values for the shape {list(described.shape)[1:]}", path=described.name)
    return tuple(shape)


def write_answer(model: ServedModel, values: Any, id: str) -> bytes:
    """One answer as a JSON object; a tensor of one element as that element. Raises BadOutput or BadTensor."""
    if not isinstance(values, dict):
        raise BadOutput(f"the model gave a {type(values).__name__}, not its outputs by name")
    head: dict[str, Any] = {"id": id} if id else {}
    parts = [orjson.dumps(head | {"model_name": model.name, "model_version": model.version})[:-1]]
    for described in model.outputs:
        if described.name not in values:
            raise BadOutput(f"the model returned no output {described.name!r}")
        array = fitting(values[described.name], OutputFormat(described.name, described.datatype, False))
        data = write_values(array, described.datatype, f"output {described.name!r}")
        parts.append(orjson.dumps(described.name) + b":" + (data[1:-1] if array.size == 1 else data))
    return b",".join(parts) + b"}"
