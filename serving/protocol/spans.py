"""The place of a tensor in shared memory instead of in its message: a range of a named region."""

from collections.abc import Mapping
from typing import NamedTuple

from serving.protocol.errors import BadTensor


class Span(NamedTuple):
    """A range of `byte_size` bytes from `offset` on in the region that is registered under this name."""

    region: str
    offset: int
    byte_size: int


def span_of(parameters: Mapping[str, object] | None, path: str) -> Span | None:
    """Returns the span in the parameters of an input or output, None if it is part of the message. Raises BadTensor."""
    if not parameters or "shared_memory_region" not in parameters:
        return None
    region = parameters["shared_memory_region"]
    if type(region) is not str or not region:
        raise BadTensor("must be the name of a region", path=f"{path}.parameters.shared_memory_region")
    for other in ("binary_data_size", "classification"):
        if parameters.get(other):
            raise BadTensor(f"both shared_memory_region and {other} are given", path=f"{path}.parameters")
    offset = _bytes(parameters, "shared_memory_offset", 0, path)
    return Span(region, offset, _bytes(parameters, "shared_memory_byte_size", None, path))


def _bytes(parameters: Mapping[str, object], name: str, default: int | None, path: str) -> int:
    value = parameters.get(name, default)
    if type(value) is not int or value < 0:
        raise BadTensor("must be a number of bytes", path=f"{path}.parameters.{name}")
    return value
