"""Recognises pickles by their bytes: data that run code when Python loads them. Loads nothing, imports nothing."""

import pickletools
import struct
from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from typing import Any

PROTOCOLS = range(2, 6)  # those that a file announces in its first two bytes
FEWEST_OPERATIONS = 4  # after such a beginning, this many make a pickle: numbers hardly do
_NAMED = {"GLOBAL", "INST"}  # with a module in the data
_CALLS = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"}
# What torch writes for tensors, and its loader takes where it takes nothing but tensors.
_OF_TENSORS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.serialization _get_layout",
    *(
        f"torch {kind}Storage"
        for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
    ),
}


def is_pickle(head: bytes) -> bool:
    """Returns whether Python could load data that begin like this as a pickle that holds more than plain values.

    A text is none, whatever its letters mean as operations, unless they name a module that exists and call it.
    """
    if len(head) > 1 and head[0] == 0x80 and head[1] in PROTOCOLS:
        first = [name for name, _ in islice(_operations(head), FEWEST_OPERATIONS)]
        return len(first) == FEWEST_OPERATIONS or first[-1:] == ["STOP"]
    knows = False
    for name, argument in _operations(head):
        if name in _NAMED and not _exists(argument):
            return False  # loading would end here
        knows = knows or name in (*_NAMED, "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
        if knows and name in _CALLS:
            return True
        if name == "PERSID":
            return False  # loading ends here, too
    return False


def holds_only_tensors(data: bytes) -> bool:
    """Returns whether a whole pickle names nothing but what makes tensors of numbers."""
    last = ""
    for name, argument in _operations(data):
        if name == "GLOBAL" and argument not in _OF_TENSORS:
            return False
        if name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):
            return False
        last = name
    return last == "STOP"


def _exists(argument: Any) -> bool:
    module = str(argument).partition(" ")[0].partition(".")[0]
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # a module without a spec
        return True


def _operations(data: bytes) -> Iterator[tuple[str, Any]]:
    """Yields the operations as Python's loader would run them, until the first one that it could not."""
    stack: list[Any] = []
    try:
        for operation, argument, _ in pickletools.genops(BytesIO(data)):
            if not _applied(stack, operation):
                return
            yield operation.name, argument
    except (ValueError, IndexError, struct.error, OverflowError):
        return  # no operation: the loader ends here


def _applied(stack: list[Any], operation: Any) -> bool:
    """Changes the stack as the operation does; returns False if the operation needs what is not on it."""
    before, after = operation.stack_before, operation.stack_after
    takes = len(before)
    if pickletools.markobject in before or (operation.name == "POP" and stack and stack[-1] is pickletools.markobject):
        if pickletools.markobject not in stack:
            return False
        while stack.pop() is not pickletools.markobject:
            pass
        takes = before.index(pickletools.markobject) if pickletools.markobject in before else 0
    if takes > len(stack):
        return False
    del stack[len(stack) - takes :]
    stack.extend(after)
    return True
