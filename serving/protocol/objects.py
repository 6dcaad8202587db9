"""Arrays of many Python objects that are freed in small steps by a thread of their own.

Freeing millions of strings takes long, holds the interpreter's lock, and happens in the thread that drops the last
reference: for requests, that is the event loop.
"""

from functools import cache
from queue import SimpleQueue
from threading import Thread

import numpy as np

from serving.protocol.messages import Tensor

FREED_AT_ONCE = 1 << 14  # elements


class _Owner(np.ndarray):
    """The memory behind an array from `empty` and behind all its views."""

    __array_priority__ = 1.0  # has `nditer` make arrays of this class

    def __del__(self) -> None:
        if self.base is None and self.size > FREED_AT_ONCE:  # it owns its memory
            _gone.put(self)  # SimpleQueue.put is reentrant: the garbage collector may run in the middle of another put


_gone: "SimpleQueue[_Owner]" = SimpleQueue()
_OWNER = np.ndarray.__new__(_Owner, (), object)


def empty(count: int, dtype: np.dtype[np.generic]) -> Tensor:
    """Returns a one-dimensional array of `count` elements that are not initialized; objects are all None."""
    if dtype.kind != "O" or count <= FREED_AT_ONCE:
        return np.empty(count, dtype)
    _begin()
    # `np.empty` would write None everywhere in one call; this leaves null pointers, which numpy reads as None.
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
