"""How a batch is computed: the seam where CUDA graphs, `torch.compile` and pinned slabs plug in.

An execution gets requests and gives host arrays back; the runner knows nothing of streams, slabs or captures.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from models.base import Bucket, Prepared, Tensors
from models.collate import Pads, collate
from models.pytorch.tensors import from_numpy, to_numpy


class Execution(Protocol):
    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> object:
        """The batch where `run` wants it. Called ahead, from another thread, while an earlier batch runs."""
        ...

    def run(self, staged: object) -> Tensors:
        """Computes the batch; returns when the outputs are on the host."""
        ...


class EagerExecution:
    """Plain torch: one copy to the device per input, the module's own forward, one copy back per output.

    output_names: what a tensor or a tuple is called, in order.
    keep: the outputs that anyone will read; None: all. The rest stays on the device.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: torch.device,
        output_names: Sequence[str],
        keep: frozenset[str] | None = None,
    ) -> None:
        self._module = module
        self._device = None if device.type == "cpu" else device
        self._output_names = tuple(output_names)
        self._keep = keep

    def stage(self, parts: Sequence[Prepared], bucket: Bucket, pads: Pads) -> Tensors:
        return collate(parts, bucket, pads)

    def run(self, staged: object) -> Tensors:
        batch: Tensors = staged  # type: ignore[assignment]
        with torch.inference_mode():
            tensors = [from_numpy(array) for array in batch.values()]
            if self._device is not None:
                tensors = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
            results = named(self._module(*tensors), self._output_names)
            keep = self._keep
            return {name: to_numpy(result) for name, result in results.items() if keep is None or name in keep}


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
    if len(result) != len(output_names):
        raise ValueError(
            f"forward returned {len(result)} tensor(s), but {len(output_names)} are declared: {', '.join(output_names)}"
        )
    return dict(zip(output_names, result, strict=True))
