"""The optional methods and attributes by which a module translates requests, told from its own layers, buffers and
methods that happen to have the same names."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import torch

from models.base import Tensors
from models.collate import Pads

Method = Callable[[Tensors], Tensors]


class Hooks(NamedTuple):
    """What models/README.md lists; None where the module has none."""

    prepare: Method | None
    finish: Method | None
    example: Callable[[], Tensors] | None
    pad: Pads | None
    max_length: int | None


def hooks_of(module: torch.nn.Module) -> Hooks:
    """The hooks of a module. A layer `finish` is none, nor is a buffer `pad`, nor a method with other parameters."""
    pad, max_length = getattr(module, "pad", None), getattr(module, "max_length", None)
    return Hooks(
        prepare=_method(module, "prepare", parameters=1),
        finish=_method(module, "finish", parameters=1),
        example=_method(module, "example", parameters=0),
        pad=dict(pad) if _is_table_of_numbers(pad) else None,
        max_length=max_length if isinstance(max_length, int) and not isinstance(max_length, bool) else None,
    )


def _method(module: torch.nn.Module, name: str, parameters: int) -> Callable[..., Any] | None:
    """A Python function that can be called with so many arguments. What was compiled takes tensors, not arrays."""
    found = getattr(module, name, None)
    if not callable(found) or isinstance(found, torch.nn.Module | torch.Tensor | torch._C.ScriptMethod):
        return None
    try:
        inspect.signature(found).bind(*range(parameters))
    except TypeError:
        return None
    except ValueError:  # no signature is known: it was made in C, and nobody writes a hook there
        return None
    return found  # type: ignore[no-any-return]


def _is_table_of_numbers(value: object) -> TypeGuard[Pads]:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(pad, int | float) for name, pad in value.items()
    )
