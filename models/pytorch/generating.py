"""A user's `nn.Module` with a method `generate` as a `models.base.GeneratingModel`."""

import logging
from collections.abc import Iterator
from typing import Any

import torch

from models.base import Tensors
from models.pytorch.cuda import Device
from models.pytorch.device import device_for, place
from models.pytorch.errors import translate
from models.pytorch.kinds import materialise
from models.spec import ModelSpec

log = logging.getLogger(__name__)


def load_generating_module(spec: ModelSpec, module: torch.nn.Module) -> "TorchGenerating":
    """Moves the module to its device and says where it runs. The module finds the device in `self.device` if it sets
    nothing of that name itself."""
    device = device_for(spec)
    materialise(spec.name, module)
    module, threads = place(spec, module, device)
    if not hasattr(module, "device"):
        module.device = device.home if device else torch.device("cpu")  # type: ignore[assignment]
    model = TorchGenerating(spec, module, device)
    log.info("model %s: %s on %s, %d thread(s)", spec.name, type(module).__name__, model.device, threads)
    return model


class TorchGenerating:
    """Every step runs in inference mode, and errors of the device become ours."""

    def __init__(self, spec: ModelSpec, module: Any, device: Device | None) -> None:
        self.spec = spec
        self.device = device.name if device else "cpu"
        self._module = module
        self._device = device

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
                    raise translate(error, self._device.works if self._device else lambda: True) from error
                yield answer
        finally:
            answers.close()

    def close(self) -> None:
        self._module = None
        if self._device:
            self._device.give_back()
