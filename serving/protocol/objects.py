"""Arrays of many Python objects, which are let go of little by little, in a thread beside everybody else's work.

To free millions of texts takes as long as to make some of them, holds the interpreter's lock, and happens in whatever
thread drops the last reference: with requests, that is the event loop.
"""

from functools import cache
from queue import SimpleQueue
from threading import Thread

import numpy as np

from serving.protocol.messages import Tensor

FREED_AT_ONCE = 1 << 14  # elements


class _Owner(np.ndarray):
    """The memory behind an array that was handed out, and behind whatever became a view of that."""

    __array_priority__ = 1.0  # has `nditer` make arrays of this class

    def __del__(self) -> None:
        if self.base is None and self.size > FREED_AT_ONCE:  # no view of another one
            _gone.put(self)  # which may be called from everywhere, also by the garbage collector amid another call


_gone: "SimpleQueue[_Owner]" = SimpleQueue()
_OWNER = np.ndarray.__new__(_Owner, (), object)


def empty(count: int, dtype: np.dtype[np.generic]) -> Tensor:
    """As `np.empty`. Objects are all None."""
    if dtype.kind != "O" or count <= FREED_AT_ONCE:
        return np.empty(count, dtype)
    _begin()
    # `np.empty` would write None everywhere in one call; here a null stands for it, as it may in numpy.
    made = np.nditer(
        [_OWNER, None],
        ["refs_ok"],
        [["readonly"], ["writeonly", "allocate"]],
        op_dtypes=[None, dtype],
        itershape=(count,),
    ).operands[1]
    return made.view(np.ndarray)


@cache
def _begin() -> None:
    Thread(target=_let_go, name="letting_go", daemon=True).start()


def _let_go() -> None:
    while True:
        objects = _gone.get()
        for start in range(0, len(objects), FREED_AT_ONCE):
            objects[start : start + FREED_AT_ONCE] = None
        del objects
