"""Adapts a user's `nn.Module` with a method `generate` to `models.base.GeneratingModel`."""

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import torch

from models.base import Tensors
from models.parameters import takes_parameters
from models.pytorch.cuda import Device
from models.pytorch.device import computing, device_for, place
from models.pytorch.errors import translate
from models.pytorch.kinds import materialise
from models.spec import ModelSpec

log = logging.getLogger(__name__)


def load_generating_module(spec: ModelSpec, module: torch.nn.Module) -> "TorchGenerating":
    """Moves the module to its device and logs the device. Sets the module's `self.device` unless the module has an
    attribute of that name. Raises `DoesNotFit`, `SpecMismatch`."""
    device = device_for(spec)
    materialise(spec.name, module)
    module, threads = place(spec, module, device)
    if not hasattr(module, "device"):
        module.device = device.home if device else torch.device("cpu")  # type: ignore[assignment]
    model = TorchGenerating(spec, module, device)
    log.info("model %s: %s on %s, %d thread(s)", spec.name, type(module).__name__, model.device, threads)
    return model


class _InferenceMode:
    """Awaits an awaitable and turns inference mode on only while it computes. The mode belongs to the thread, in which
    other tasks run while this one waits.
    """

    def __init__(self, awaited: Any) -> None:
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaited.__await__()
        go_on, given = steps.send, None
        while True:
            with computing():
                try:
                    waits_for = go_on(given)
                except StopIteration as ended:
                    return ended.value
            try:
                go_on, given = steps.send, (yield waits_for)
            except BaseException as error:
                go_on, given = steps.throw, error


class TorchGenerating:
    """A generating module. Every step runs in inference mode, and its errors are translated to those of
    `models.base`."""

    def __init__(self, spec: ModelSpec, module: Any, device: Device | None) -> None:
        self.spec = spec
        self.device = device.name if device else "cpu"
        self.takes_parameters = takes_parameters(module.generate)
        self._module = module
        self._device = device
        self.waits = inspect.isasyncgenfunction(module.generate)

    def generate(self, inputs: Tensors, **parameters: Any) -> Iterator[Tensors] | AsyncIterator[Tensors]:
        answers = self._module.generate(inputs, **parameters)
        return self._awaited(answers) if self.waits else self._in_turn(answers)

    def _in_turn(self, answers: Any) -> Iterator[Tensors]:
        try:
            while True:
                try:
                    with computing():
                        answer = next(answers)
                except StopIteration:
                    return
                except Exception as error:
                    raise translate(error, self._device_works()) from error
                yield answer
        finally:
            answers.close()

    async def _awaited(self, answers: Any) -> AsyncIterator[Tensors]:
        try:
            while True:
                try:
                    answer = await _InferenceMode(answers.__anext__())
                except StopAsyncIteration:
                    return
                except Exception as error:
                    raise translate(error, self._device_works()) from error
                yield answer
        finally:
            await answers.aclose()

    def _device_works(self) -> Callable[[], bool]:
        return self._device.works if self._device else lambda: True

    def close(self) -> None:
        self._module = None
        if self._device:
            self._device.give_back()
