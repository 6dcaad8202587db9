"""A user's `nn.Module` with a method `generate` as a `models.base.GeneratingModel`."""

import logging
from collections.abc import Iterator
from typing import Any

import torch

from models.base import Tensors
from models.pytorch.device import choose_device, claim_memory, set_threads, thread_count, usable_cpus
from models.pytorch.errors import cuda_works, translate
from models.spec import ModelSpec

log = logging.getLogger(__name__)


def load_generating_module(spec: ModelSpec, module: torch.nn.Module) -> "TorchGenerating":
    """Moves the module to its device and says where it runs. The module finds the device in `self.device` if it sets
    nothing of that name itself."""
    device = choose_device(spec.resources)
    threads = 1 if device.type == "cuda" else thread_count(spec.resources.cpus, usable_cpus())
    set_threads(threads)
    if device.type == "cuda":
        claim_memory(spec.name, module, spec.resources, device)
    module = module.to(device).eval().requires_grad_(False)
    if not hasattr(module, "device"):
        module.device = device  # type: ignore[assignment]
    log.info("model %s: %s on %s, %d thread(s)", spec.name, type(module).__name__, device, threads)
    return TorchGenerating(spec, module, device)


class TorchGenerating:
    """Every step runs in inference mode, and errors of the device become ours."""

    def __init__(self, spec: ModelSpec, module: Any, device: torch.device) -> None:
        self.spec = spec
        self.device = str(device)
        self._module = module
        self._device_works = cuda_works if device.type == "cuda" else lambda: True

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        answers = self._module.generate(inputs)
        try:
            while True:
                try:
                    with torch.inference_mode():
                        answer = next(answers)
                except StopIteration:
                    return
                except Exception as error:
                    raise translate(error, self._device_works) from error
                yield answer
        finally:
            answers.close()

    def close(self) -> None:
        self._module = None
        if self.device != "cpu":
            torch.cuda.empty_cache()
