"""Lays out the tensors of one batch in one block of memory, so that a single copy moves them all."""

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

import numpy as np
import torch

from models.base import Bucket, Prepared, Tensors
from models.collate import Pads
from models.pytorch.tensors import from_numpy, to_numpy

ALIGNMENT = 256  # bytes; kernels expect this alignment of memory from torch


class Field(NamedTuple):
    """One tensor in the slab. begin, end: offsets in bytes."""

    name: str
    numpy_type: np.dtype
    torch_type: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


class Layout(NamedTuple):
    """The places of tensors in a slab. size: bytes of all fields together."""

    fields: tuple[Field, ...]
    size: int

    def arrays(self, slab: np.ndarray) -> Tensors:
        """Returns the tensors as views of a slab of bytes."""
        return {
            field.name: slab[field.begin : field.end].view(field.numpy_type).reshape(field.shape)
            for field in self.fields
        }

    def tensors(self, slab: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            field.name: slab[field.begin : field.end].view(field.torch_type).view(field.shape) for field in self.fields
        }


def input_layout(first: Prepared, bucket: Bucket, pads: Pads) -> Layout:
    """Returns the layout of the padded batch that `collate` builds from requests like this one."""
    return _layout(
        (
            name,
            array.dtype,
            _torch_type(array.dtype),
            (bucket.rows, bucket.length, *array.shape[2:]) if name in pads else (bucket.rows, *array.shape[1:]),
        )
        for name, array in first.tensors.items()
    )


def output_layout(results: dict[str, torch.Tensor]) -> Layout:
    return _layout(
        (name, _numpy_type(result.dtype), result.dtype, tuple(result.shape)) for name, result in results.items()
    )


def _layout(tensors: Iterable[tuple[str, np.dtype, torch.dtype, tuple[int, ...]]]) -> Layout:
    fields = []
    end = 0
    for name, numpy_type, torch_type, shape in tensors:
        begin = -(-end // ALIGNMENT) * ALIGNMENT
        end = begin + prod(shape) * numpy_type.itemsize
        fields.append(Field(name, numpy_type, torch_type, shape, begin, end))
    return Layout(tuple(fields), end)


_torch_types: dict[np.dtype, torch.dtype] = {}
_numpy_types: dict[torch.dtype, np.dtype] = {}


def _torch_type(numpy_type: np.dtype) -> torch.dtype:
    torch_type = _torch_types.get(numpy_type)
    if torch_type is None:
        torch_type = _torch_types[numpy_type] = from_numpy(np.empty(0, numpy_type)).dtype
    return torch_type


def _numpy_type(torch_type: torch.dtype) -> np.dtype:
    numpy_type = _numpy_types.get(torch_type)
    if numpy_type is None:
        numpy_type = _numpy_types[torch_type] = to_numpy(torch.empty(0, dtype=torch_type)).dtype
    return numpy_type
