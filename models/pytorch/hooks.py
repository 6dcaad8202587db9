"""Finds the optional methods and attributes with which a module translates requests. Layers, buffers and other methods
of the same names are not taken for them."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import torch

from models.base import Tensors
from models.collate import Pads

Method = Callable[[Tensors], Tensors]


class Hooks(NamedTuple):
    """The hooks listed in models/README.md; None for each that the module lacks."""

    prepare: Method | None
    finish: Method | None
    example: Callable[[], Tensors] | None
    pad: Pads | None
    max_length: int | None


def hooks_of(module: torch.nn.Module) -> Hooks:
    """Returns the hooks of a module. A layer `finish`, a buffer `pad` or a method with other parameters is not a
    hook."""
    pad, max_length = getattr(module, "pad", None), getattr(module, "max_length", None)
    return Hooks(
        prepare=_method(module, "prepare", parameters=1),
        finish=_method(module, "finish", parameters=1),
        example=_method(module, "example", parameters=0),
        pad=dict(pad) if _is_table_of_numbers(pad) else None,
        max_length=max_length if isinstance(max_length, int) and not isinstance(max_length, bool) else None,
    )


def _method(module: torch.nn.Module, name: str, parameters: int) -> Callable[..., Any] | None:
    """Returns the Python method of this name if it can be called with this many arguments. Compiled methods take
    tensors, not arrays, and are not hooks."""
    method = getattr(module, name, None)
    if not callable(method) or isinstance(method, torch.nn.Module | torch.Tensor | torch._C.ScriptMethod):
        return None
    try:
        inspect.signature(method).bind(*range(parameters))
    except TypeError:
        return None
    except ValueError:  # no signature is known: the method is written in C, so it is not a hook
        return None
    return method  # type: ignore[no-any-return]


def _is_table_of_numbers(value: object) -> TypeGuard[Pads]:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(pad, int | float) for name, pad in value.items()
    )
