"""Detects whether a model takes the parameters of a request: its method has a keyword-only argument `parameters`."""

import inspect
from collections.abc import Callable
from typing import Any


def takes_parameters(method: Callable[..., Any]) -> bool:
    """Returns whether the method has a keyword-only argument `parameters`. A positional argument of that name is an
    input."""
    try:
        wanted = inspect.signature(method).parameters.get("parameters")
    except (TypeError, ValueError):  # written in C, or compiled by torch.jit: its arguments are unknown
        return False
    return wanted is not None and wanted.kind is inspect.Parameter.KEYWORD_ONLY
