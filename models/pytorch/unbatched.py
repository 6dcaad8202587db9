"""A module without a batch dimension, as the runner wants modules: with batches, which here have one row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from models.base import Tensors


class Unbatched(torch.nn.Module):
    """Takes the dimension of rows off what the module is given, and puts it in front of what comes back. The module's
    `prepare`, `finish` and `example` are treated alike; it has those of them that the module has."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        for name in ("prepare", "finish"):
            if method := getattr(module, name, None):
                setattr(self, name, _around(method))
        if example := getattr(module, "example", None):
            self.example = lambda: _with_row(example())

    def forward(self, *tensors: torch.Tensor | None, **parameters: Any) -> Any:
        result = self.module(*[None if tensor is None else tensor[0] for tensor in tensors], **parameters)
        if isinstance(result, torch.Tensor):
            return result[None]
        if isinstance(result, dict):
            return {name: tensor[None] for name, tensor in result.items()}
        return tuple(tensor[None] for tensor in result) if isinstance(result, tuple | list) else result


def _around(method: Callable[[Tensors], Tensors]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: _with_row(method({name: array[0] for name, array in tensors.items()}))


def _with_row(tensors: Tensors) -> Tensors:
    return {name: np.asarray(array)[np.newaxis] for name, array in tensors.items()}
