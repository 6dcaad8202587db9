"""Whether a model wants to know the parameters of a request: its method has a keyword-only argument `parameters`."""

import inspect
from collections.abc import Callable
from typing import Any


def takes_parameters(method: Callable[..., Any]) -> bool:
    """Keyword-only, since an input may be called `parameters` too, and inputs come by position."""
    try:
        wanted = inspect.signature(method).parameters.get("parameters")
    except (TypeError, ValueError):  # made in C, or compiled by torch.jit: nothing is known of its arguments
        return False
    return wanted is not None and wanted.kind is inspect.Parameter.KEYWORD_ONLY
