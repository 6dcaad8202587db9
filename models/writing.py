"""Detects at load which models write into their inputs, and gives those models copies.

Other models are given the request's memory, a client's shared memory or the state of a sequence, which must not change.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.base import Tensors

READ_ONLY = "read-only"  # part of numpy's message for an assignment to such an array


def frozen(tensors: Tensors) -> Tensors:
    """Returns read-only views of the arrays."""
    views = {name: array.view() for name, array in tensors.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def copied(tensors: Tensors) -> Tensors:
    return {name: array.copy() for name, array in tensors.items()}


def have_changed(tensors: Tensors, before: Tensors) -> bool:
    """Returns whether the bytes of any array differ from before. NaN equals NaN of the same bytes."""
    return any(array.tobytes() != before[name].tobytes() for name, array in tensors.items())


class Guarded:
    """Wraps a function of tensors that it must not change. `writes`: the function writes into them and is given
    copies."""

    def __init__(self, call: Callable[[Tensors], Any]) -> None:
        self.writes = False
        self._call: Callable[[Tensors], Any] = call

    def __call__(self, tensors: Tensors) -> Any:
        if self.writes:
            return self._call(copied(tensors))
        try:
            return self._call(tensors)
        except ValueError as error:
            if READ_ONLY not in str(error):
                raise
            self.writes = True
            if any(array.flags.writeable for array in tensors.values()):  # these may be changed already
                raise ValueError(f"{error}: the model writes into its inputs; copy them in the model first") from error
            return self._call(copied(tensors))

    def tried(self, tensors: Tensors) -> Any:
        """Calls the function with tensors that may be overwritten, to detect whether it writes."""
        if not all(isinstance(array, np.ndarray) for array in tensors.values()):
            return self(tensors)
        before = copied(tensors)
        result = self(frozen(tensors))
        self.writes = self.writes or have_changed(tensors, before)
        return result
