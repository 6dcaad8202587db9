"""How a batch is computed: the seam between the runner, which knows requests, and devices.

An execution gets requests and gives host arrays back; the runner knows nothing of streams, slabs or captures.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from models.base import Bucket, Collected, Prepared, Tensors
from models.collate import Pads, collate
from models.pytorch.tensors import from_numpy, to_numpy

Compute = Callable[..., Any]


class Execution(Protocol):
    asynchronous: bool
    """`launch` returns before the batch is computed."""
    compute: Compute
    """From input tensors by position to what the module returns. May be exchanged between two batches."""

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> object:
        """The batch where `launch` wants it. Where that is not asynchronous, called from another thread meanwhile."""
        ...

    def launch(self, staged: object) -> object:
        """Computes the batch, or has the device do so. Every staged batch is launched once."""
        ...

    def collect(self, launched: object) -> Collected:
        """Waits for the batch; every launched batch is collected once, from any thread."""
        ...

    def settle(self) -> None:
        """Called after the module was changed: the next batch is computed with what it is now."""
        ...

    def close(self) -> None: ...


class DirectExecution:
    """For the CPU: the module is called on the requests' own memory where that is possible, and waited for.

    output_names: what a tensor or a tuple is called, in order.
    keep: the outputs that anyone will read; None: all.
    """

    asynchronous = False

    def __init__(self, compute: Compute, output_names: Sequence[str], keep: frozenset[str] | None = None) -> None:
        self.compute = compute
        self._output_names = tuple(output_names)
        self._keep = keep

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> Tensors:
        return collate(parts, bucket, pads)

    def launch(self, staged: object) -> Tensors:
        batch: Tensors = staged  # type: ignore[assignment]
        with torch.inference_mode():
            results = named(self.compute(*[from_numpy(array) for array in batch.values()]), self._output_names)
            keep = self._keep
            return {name: _on_host(name, result) for name, result in results.items() if keep is None or name in keep}

    def collect(self, launched: object) -> Collected:
        return Collected(launched)  # type: ignore[arg-type]

    def settle(self) -> None:
        pass

    def close(self) -> None:
        self.compute = closed


def _on_host(name: str, result: torch.Tensor) -> np.ndarray:
    try:
        return to_numpy(result)
    except AttributeError:
        raise not_a_tensor(name, result) from None


def not_a_tensor(name: str, result: object) -> TypeError:
    return TypeError(f"forward returned a {type(result).__name__} for output {name!r}; return a tensor")


def closed(*_: object) -> Any:
    """What is left of a closed model."""
    raise RuntimeError("the model is closed")


def named(result: object, output_names: Sequence[str]) -> dict[str, torch.Tensor]:
    """What a module returned, by output name. A tensor and a tuple take the declared names in order."""
    if isinstance(result, dict):
        return result
    if isinstance(result, torch.Tensor):
        result = (result,)
    if not isinstance(result, tuple | list):
        raise TypeError(
            f"forward returned a {type(result).__name__}; return a tensor, a tuple of tensors, or a dict by name"
        )
    fields = getattr(result, "_fields", ())
    if fields and set(output_names) <= set(fields):  # a named tuple says itself which is which
        return {name: getattr(result, name) for name in output_names}
    if len(result) != len(output_names):
        raise ValueError(
            f"forward returned {len(result)} tensor(s), but {len(output_names)} are declared: {', '.join(output_names)}"
        )
    misplaced = [name for name, field in zip(output_names, fields, strict=False) if name != field and name in fields]
    if misplaced:
        raise ValueError(
            f"forward returned a named tuple ({', '.join(fields)}) in which output {misplaced[0]!r} stands in another"
            f" place than declared ({', '.join(output_names)}); give its fields the names of the outputs"
        )
    return dict(zip(output_names, result, strict=True))
