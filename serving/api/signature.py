"""Checks a request against the tensors that the model declares: names, datatypes and shapes, but not values."""

from collections.abc import Sequence
from typing import Protocol

from serving.protocol.errors import BadMessage, BadTensor
from serving.protocol.messages import RequestedOutput, TensorDescription
from serving.protocol.reply import OutputFormat
from serving.protocol.tensors import NOT_IN_JSON


class Described(Protocol):
    """The name, datatype and shape of an input, decoded from JSON or from protobuf."""

    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


def check_inputs(declared: Sequence[TensorDescription], given: Sequence[Described]) -> int:
    """Returns the number of rows, which is equal for all inputs; 1 if the model has no batch dimension.

    Raises BadMessage or BadTensor if the inputs do not fit the model."""
    by_name = {description.name: description for description in declared}
    seen: set[str] = set()
    rows = 1
    for index, tensor in enumerate(given):
        path = f"inputs[{index}]"
        description = by_name.get(tensor.name)
        if description is None:
            names = ", ".join(repr(name) for name in by_name)
            raise BadMessage(f"unknown input {tensor.name[:100]!r}, the model takes {names}", path=path)
        if tensor.name in seen:
            raise BadMessage(f"input {tensor.name!r} is given twice", path=path)
        seen.add(tensor.name)
        _check_tensor(description, tensor, path)
        if not description.batched:
            continue
        if index and tensor.shape[0] != rows:
            raise BadTensor(f"{tensor.shape[0]} rows, but the first input has {rows}", path=f"{path}.shape[0]")
        rows = tensor.shape[0]
    if missing := [name for name, description in by_name.items() if name not in seen and not description.optional]:
        raise BadMessage(f"missing {', '.join(repr(name) for name in missing)}", path="inputs")
    return rows


def _check_tensor(description: TensorDescription, tensor: Described, path: str) -> None:
    if tensor.datatype != description.datatype:
        raise BadTensor(
            f"input {tensor.name!r} takes {description.datatype}, got {tensor.datatype}", path=f"{path}.datatype"
        )
    shape, wanted = tensor.shape, description.shape
    if len(shape) != len(wanted):
        raise BadTensor(
            f"input {tensor.name!r} takes {len(wanted)} dimensions {list(wanted)}, got {list(shape)}",
            path=f"{path}.shape",
        )
    for index, (size, expected) in enumerate(zip(shape, wanted, strict=True)):
        if index == 0 and size < 1:
            # As in Triton, zero rows are an error, whereas a row may have zero elements.
            raise BadTensor(f"must be at least 1, got {size}", path=f"{path}.shape[{index}]")
        if expected not in (-1, size):
            raise BadTensor(
                f"input {tensor.name!r} takes {expected} (shape {list(wanted)}), got {size}",
                path=f"{path}.shape[{index}]",
            )


def choose_outputs(
    declared: Sequence[TensorDescription], requested: Sequence[RequestedOutput], binary: bool
) -> tuple[OutputFormat, ...]:
    """Returns the outputs to send with their formats: the requested ones in the client's order, or else all of them.

    binary: the format of outputs for which the client requests neither JSON nor binary data. Raises BadMessage.
    """
    by_name = {description.name: description for description in declared}
    if not requested:
        return tuple(_format(description, RequestedOutput(description.name), binary) for description in declared)
    formats: list[OutputFormat] = []
    for index, output in enumerate(requested):
        description = by_name.get(output.name)
        if description is None:
            names = ", ".join(repr(name) for name in by_name)
            raise BadMessage(
                f"unknown output {output.name[:100]!r}, the model returns {names}", path=f"outputs[{index}]"
            )
        if any(other.name == output.name for other in formats):
            raise BadMessage(f"output {output.name!r} is requested twice", path=f"outputs[{index}]")
        formats.append(_format(description, output, binary))
    return tuple(formats)


def _format(description: TensorDescription, output: RequestedOutput, binary: bool) -> OutputFormat:
    chosen = binary if output.binary is None else output.binary
    if output.classes:
        if description.datatype == "BYTES":
            raise BadMessage("classification needs numbers, and this output is BYTES", path=f"output {output.name!r}")
        return OutputFormat(output.name, "BYTES", chosen, output.classes)
    if output.span:
        return OutputFormat(output.name, description.datatype, binary=True, span=output.span)
    if not chosen and description.datatype in NOT_IN_JSON:
        raise BadMessage(
            f"{description.datatype} cannot travel as JSON, set binary_data to true", path=f"output {output.name!r}"
        )
    return OutputFormat(output.name, description.datatype, chosen)
