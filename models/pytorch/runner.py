"""A user's `nn.Module` as a `models.base.Model`: how the module's optional methods meet batches and devices."""

import logging
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from models.base import Bucket, Collected, DeviceLost, InvalidInput, Prepared, Tensors
from models.collate import Pads, split_rows
from models.preparing import (
    has_fixed_shapes,
    length_buckets,
    made_up_inputs,
    prepare_fixed,
    prepare_variable,
    resized,
    rows_of,
)
from models.pytorch.checking import BrokenPromise, check_example, check_outputs, check_prepared, check_rows, lengthened
from models.pytorch.cuda import Device
from models.pytorch.device import device_for, place
from models.pytorch.errors import translate
from models.pytorch.execution import DirectExecution, Execution
from models.pytorch.hooks import hooks_of
from models.pytorch.kinds import Made, as_module, materialise
from models.pytorch.pipeline import PipelinedExecution
from models.pytorch.tensors import from_numpy
from models.pytorch.tuning import Tuning
from models.spec import ModelSpec

log = logging.getLogger(__name__)


def load_module(spec: ModelSpec, made: Made, device: Device | None = None, *, lane_index: int = 0) -> "TorchModel":
    """Moves the module to its device, tries it, and says where it runs.

    lane_index: of several that serve the model in this process, each on a GPU of its own.
    device: an asynchronous device to use instead of what the spec asks for.
    """
    device = device or device_for(spec, lane_index)
    module = as_module(made, device.home if device else torch.device("cpu"))
    materialise(spec.name, module, lambda: _sample_tensors(spec, module))
    module, threads = place(spec, module, device)
    model = TorchModel(spec, module, _execution(spec, module, device), device)
    model.check()
    log.info("model %s: %s on %s, %d thread(s)", spec.name, type(module).__name__, model.device, threads)
    return model


def _execution(spec: ModelSpec, module: torch.nn.Module, device: Device | None) -> Execution:
    names = [tensor.name for tensor in spec.outputs]
    keep = None if hooks_of(module).finish else frozenset(names)
    return PipelinedExecution(module, device, names, keep) if device else DirectExecution(module, names, keep)


def _sample_tensors(spec: ModelSpec, module: torch.nn.Module) -> list[torch.Tensor]:
    model = TorchModel(spec, module, DirectExecution(module, []))
    return [from_numpy(array) for array in model.try_sample(1, model.lengths()[0]).tensors.values()]


class TorchModel:
    """Made by `load_module`. `prepare` and `split` call the user's methods, from any thread.

    device: None for the CPU, where the module is simply called.
    """

    def __init__(
        self, spec: ModelSpec, module: torch.nn.Module, execution: Execution, device: Device | None = None
    ) -> None:
        self.spec = spec
        self.device = device.name if device else "cpu"
        self.asynchronous = execution.asynchronous
        self._execution = execution
        self._tuning = Tuning(spec, module, execution)
        hooks = hooks_of(module)
        self._user_prepare, self._user_finish, self._example = hooks.prepare, hooks.finish, hooks.example
        self.prepares = self._user_prepare is not None
        self.finishes = self._user_finish is not None
        self._max_length = hooks.max_length
        self._inputs = tuple(tensor.name for tensor in spec.inputs)
        self._pads: Pads = {tensor.name: tensor.pad for tensor in spec.inputs if tensor.pad is not None}
        if self.prepares:
            self._pads = hooks.pad or {}
        self._fixed = not self.prepares and has_fixed_shapes(spec.inputs)
        self._lengths = length_buckets(self._max_length) if self._pads else (1,)
        self._padded_outputs: frozenset[str] = frozenset()
        self._device = device

    def prepare(self, inputs: Tensors) -> Prepared:
        if self._user_prepare is not None:
            rows = rows_of(inputs)
            made = self._user_prepare(inputs)
            check_prepared(made, rows)
            return prepare_variable(made, self._pads, self._max_length)
        if len(self._inputs) > 1:  # the module takes them by position, the client sent them in any order
            inputs = {name: inputs[name] for name in self._inputs}
        if self._fixed:
            return prepare_fixed(inputs)
        return prepare_variable(inputs, self._pads, self._max_length)

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> object:
        return self._execution.stage(parts, bucket, self._pads)

    def launch(self, staged: object) -> object:
        try:
            return self._execution.launch(staged)
        except Exception as error:
            self._raise(error)

    def collect(self, launched: object) -> Collected:
        try:
            return self._execution.collect(launched)
        except Exception as error:
            self._raise(error)

    def forward(self, staged: object) -> Tensors:
        return self.collect(self.launch(staged)).outputs

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> list[Tensors]:
        answers = split_rows(outputs, parts, self._padded_outputs)
        if self._user_finish is None:
            return answers
        return [self._user_finish(answer) for answer in answers]

    def sample(self, rows: int, length: int) -> Prepared:
        if self._example is not None:
            example = self._example()
            check_example(example, self.spec.inputs)
            return resized(self.prepare(example), rows, length, self._pads)
        if self.prepares:
            # Nobody but the user knows what `prepare` accepts; one made-up row shows whether zeros are good enough.
            made_up = self.prepare(made_up_inputs(self.spec.inputs, 1, self._lengths[0]))
            return resized(made_up, rows, length, self._pads)
        return self.prepare(made_up_inputs(self.spec.inputs, rows, length))

    def lengths(self) -> tuple[int, ...]:
        return self._lengths

    @property
    def tunable(self) -> bool:
        return self._tuning.has_steps()

    def tune(self, measured: Sequence[Bucket], row_ladder: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        return self._tuning.tune(measured, self.sample, self._pads, row_ladder)

    def facts(self) -> dict[str, Any]:
        return self._tuning.facts()

    def close(self) -> None:
        """Drops the module, and gives its memory back to the device."""
        self._execution.close()
        self._tuning.close()
        self._user_prepare = self._user_finish = self._example = None  # bound methods hold the module
        if self._device:
            self._device.give_back()

    def check(self) -> None:
        """Runs made-up requests through the whole way. Raises `BrokenPromise` where module and spec do not fit.

        Also learns which outputs are as long as the padded inputs, to cut them later.
        """
        shortest = self._lengths[0]
        rows = self._rows_to_check(shortest)
        lengths = {shortest // 2 or 1, shortest} if self._pads else {shortest}
        parts = [self.try_sample(rows, length) for length in sorted(lengths)]
        outputs = [self.forward(self.collate([part], Bucket(rows, part.length))) for part in parts]
        if len(parts) == 2:
            self._padded_outputs = lengthened(outputs[0], parts[0].length, outputs[1], parts[1].length)
        for part, output in zip(parts, outputs, strict=True):
            if self.finishes:
                check_rows(output, rows)
            else:
                check_outputs(output, self.spec.outputs, rows, part.length if self._pads else None)
            (answer,) = self.split(output, [part])
            check_outputs(answer, self.spec.outputs, rows, None)

    def _rows_to_check(self, length: int) -> int:
        """2; or 1 where the module cannot compute 2, which warming up finds too. Raises what it raises for one."""
        self.forward(self.collate([self.try_sample(1, length)], Bucket(1, length)))
        if self.spec.limits.max_batch_rows == 1:
            return 1
        try:
            self.forward(self.collate([self.try_sample(2, length)], Bucket(2, length)))
        except DeviceLost:
            raise
        except Exception as error:
            log.info("model %s: 2 rows fail, so 1 is checked: %s", self.spec.name, error)
            return 1
        return 2

    def try_sample(self, rows: int, length: int) -> Prepared:
        """As `sample`. Raises `BrokenPromise` with a sentence where the module's own methods are in the way."""
        textual = [tensor.name for tensor in self.spec.inputs if tensor.datatype == "BYTES"]
        if textual and not self.prepares:
            raise BrokenPromise(
                f"input {textual[0]!r} is BYTES: the module needs a method `prepare` to make it numbers"
            )
        try:
            return self.sample(rows, length)
        except InvalidInput as error:
            hint = "its own `example`" if self._example else "made-up input: give the module a method `example`"
            raise BrokenPromise(f"`prepare` refuses {hint} ({error})") from error
        except BrokenPromise:
            raise
        except Exception as error:
            which = "its own `example`" if self._example else "made-up input (a method `example` gives valid input)"
            raise BrokenPromise(
                f"`prepare` fails on {which}: {type(error).__name__}: {error}. It is called with the inputs of a"
                " request; a method of that name that does something else needs another name"
            ) from error

    def _raise(self, error: Exception) -> NoReturn:
        translated = translate(error, self._device.works if self._device else lambda: True)
        if translated is error:
            raise error
        raise translated from error

    def __repr__(self) -> str:
        return f"<TorchModel {self.spec.name} on {self.device}>"
