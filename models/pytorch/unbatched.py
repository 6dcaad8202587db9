"""Adapts a module without a batch dimension to the runner, which expects batches; here each batch has one row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from models.base import Tensors
from models.pytorch.hooks import hooks_of


class Unbatched(torch.nn.Module):
    """Removes the dimension of rows from the module's inputs and adds it to its outputs, also for the module's
    `prepare`, `finish` and `example`. It has those of these methods that the module has."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        hooks = hooks_of(module)
        if hooks.prepare:
            self.prepare = _around(hooks.prepare)
        if hooks.finish:
            self.finish = _around(hooks.finish)
        if example := hooks.example:
            self.example = lambda: _with_row(example())

    def forward(self, *tensors: torch.Tensor | None, **parameters: Any) -> Any:
        result = self.module(*[None if tensor is None else tensor[0] for tensor in tensors], **parameters)
        if isinstance(result, torch.Tensor):
            return result[None]
        if isinstance(result, dict):
            return {name: tensor[None] for name, tensor in result.items()}
        if isinstance(result, tuple | list):
            with_rows = [tensor[None] for tensor in result]
            return type(result)(*with_rows) if hasattr(result, "_fields") else tuple(with_rows)
        return result


def _around(method: Callable[[Tensors], Tensors]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: _with_row(method({name: array[0] for name, array in tensors.items()}))


def _with_row(tensors: Tensors) -> Tensors:
    return {name: np.asarray(array)[np.newaxis] for name, array in tensors.items()}
