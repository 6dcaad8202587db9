"""Adapts a user's object with a method `generate` to `models.base.GeneratingModel`."""

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

from models.base import Tensors
from models.parameters import takes_parameters
from models.spec import ModelSpec


class PlainGenerating:
    """The adapter for an object that uses no torch device. Calls the object's `close` if it has one."""

    device = "cpu"

    def __init__(self, spec: ModelSpec, made: Any) -> None:
        self.spec = spec
        self._made = made
        self.device = getattr(made, "device", "cpu")
        self.waits = inspect.isasyncgenfunction(made.generate)
        self.takes_parameters = takes_parameters(made.generate)

    def generate(self, inputs: Tensors, **parameters: Any) -> Iterator[Tensors] | AsyncIterator[Tensors]:
        answers: Iterator[Tensors] | AsyncIterator[Tensors] = self._made.generate(inputs, **parameters)
        return answers

    def close(self) -> None:
        close = getattr(self._made, "close", None)
        if close is not None:
            close()

    def __repr__(self) -> str:
        return f"<PlainGenerating {self.spec.name}>"
