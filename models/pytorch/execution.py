"""Computes batches: the interface between the runner, which handles requests, and devices.

An execution takes requests and returns host arrays; streams, slabs and captures are hidden from the runner.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from models.base import Bucket, Collected, Prepared, Tensors
from models.collate import Pads, collate, new_array
from models.pytorch.device import computing
from models.pytorch.tensors import from_numpy, to_numpy

Compute = Callable[..., Any]


class Execution(Protocol):
    asynchronous: bool
    """`launch` returns before the batch is computed."""
    writes_inputs: bool
    """The module has written into its inputs, so it is given copies."""
    compute: Compute
    """Takes input tensors by position, returns the module's result. May be replaced between two batches."""

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> object:
        """Collates the batch into memory that `launch` uses. If `launch` is not asynchronous, this is called from
        another thread while `launch` computes."""
        ...

    def launch(self, staged: object, **parameters: Any) -> object:
        """Computes the batch, or enqueues it on the device. Every staged batch is launched once.

        parameters: keyword arguments for `compute`."""
        ...

    def collect(self, launched: object) -> Collected:
        """Waits for the batch and returns its outputs. Every launched batch is collected once, from any thread."""
        ...

    def refresh(self) -> None:
        """Waits until changes of the module have reached the device. Called after each change."""
        ...

    def close(self) -> None: ...


class DirectExecution:
    """The execution on the CPU, which calls the module and waits for it, without copying the requests if possible. A
    module that writes into its inputs is given copies after the first time, which is the check at load.

    output_names: the names of a returned tensor or tuple, in order.
    keep: the outputs that are read; None: all.
    input_names: the module's arguments in order, if a batch may lack some of them; None: all inputs of the batch.
    """

    asynchronous = False

    def __init__(
        self,
        compute: Compute,
        output_names: Sequence[str],
        keep: frozenset[str] | None = None,
        input_names: Sequence[str] | None = None,
    ) -> None:
        self.compute = compute
        self.writes_inputs = False
        self._input_names = input_names
        self._output_names = tuple(output_names)
        self._keep = keep

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> Tensors:
        return collate(parts, bucket, pads, new_array if self.writes_inputs else None)

    def launch(self, staged: object, **parameters: Any) -> Tensors:
        batch: Tensors = staged  # type: ignore[assignment]
        # Outside of inference mode, in which tensors do not count their changes.
        tensors = {name: from_numpy(array) for name, array in batch.items()}
        with computing():
            results = named(self.compute(*arguments(tensors, self._input_names), **parameters), self._output_names)
            keep = self._keep
            outputs = {name: _on_host(name, result) for name, result in results.items() if keep is None or name in keep}
        for tensor in tensors.values():
            if tensor._version:
                self.writes_inputs = True
        return outputs

    def collect(self, launched: object) -> Collected:
        return Collected(launched)  # type: ignore[arg-type]

    def refresh(self) -> None:
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


def arguments(tensors: dict[str, torch.Tensor], names: Sequence[str] | None) -> Iterable[torch.Tensor | None]:
    """Returns a module's positional arguments: one tensor per name, None if it is missing; all tensors without
    names."""
    return tensors.values() if names is None else [tensors.get(name) for name in names]


def closed(*_: object) -> Any:
    """Raises RuntimeError. Replaces the module of a closed model."""
    raise RuntimeError("the model is closed")


def named(result: object, output_names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Returns a module's result by output name. A tensor or tuple gets the declared names in order; a named tuple, its
    own. Raises TypeError or ValueError if the result does not match the names."""
    if isinstance(result, dict):
        return result
    if isinstance(result, torch.Tensor):
        result = (result,)
    if not isinstance(result, tuple | list):
        raise TypeError(
            f"forward returned a {type(result).__name__}; return a tensor, a tuple of tensors, or a dict by name"
        )
    fields = getattr(result, "_fields", ())
    if fields and set(output_names) <= set(fields):  # the fields of a named tuple may be in any order
        return {name: getattr(result, name) for name in output_names}
    if len(result) != len(output_names):
        raise ValueError(
            f"forward returned {len(result)} tensor(s), but {len(output_names)} are declared: {', '.join(output_names)}"
        )
    misplaced = [name for name, field in zip(output_names, fields, strict=False) if name != field and name in fields]
    if misplaced:
        raise ValueError(
            f"forward returned a named tuple ({', '.join(fields)}) in which output {misplaced[0]!r} is in another"
            f" place than declared ({', '.join(output_names)}); give its fields the names of the outputs"
        )
    return dict(zip(output_names, result, strict=True))
