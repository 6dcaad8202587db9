"""Models that write into what they are given: found out at load, and given copies from then on.

Others are given the request's own memory, a client's shared memory or the state of a sequence, which must stay as they
are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from models.base import Tensors

READ_ONLY = "read-only"  # in what numpy says of an assignment to such an array


def frozen(tensors: Tensors) -> Tensors:
    """The same arrays, which numpy does not let be written to."""
    views = {name: array.view() for name, array in tensors.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def copied(tensors: Tensors) -> Tensors:
    return {name: array.copy() for name, array in tensors.items()}


def have_changed(tensors: Tensors, before: Tensors) -> bool:
    """Whether any is not what it was. Equal bytes are equal, also those of NaN."""
    return any(array.tobytes() != before[name].tobytes() for name, array in tensors.items())


class Guarded:
    """Calls something with tensors that are not its own. `writes`: it writes into them, and is given copies."""

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
            if any(array.flags.writeable for array in tensors.values()):  # which may have been written to already
                raise ValueError(f"{error}: the model writes into its inputs, copy them first") from error
            return self._call(copied(tensors))

    def tried(self, tensors: Tensors) -> Any:
        """Called with tensors that may be spoiled, to find out whether it writes."""
        if not all(isinstance(array, np.ndarray) for array in tensors.values()):
            return self(tensors)
        before = copied(tensors)
        result = self(frozen(tensors))
        self.writes = self.writes or have_changed(tensors, before)
        return result
