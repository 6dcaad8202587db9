"""Adapts a user's `nn.Module`, with its optional methods, to `models.base.Model`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

import torch

from models.base import Bucket, Collected, DeviceLost, InvalidInput, Prepared, Tensors
from models.collate import Pads, split_rows
from models.parameters import takes_parameters
from models.preparing import (
    has_fixed_shapes,
    length_buckets,
    made_up_inputs,
    prepare_fixed,
    prepare_variable,
    resized,
    rows_of,
)
from models.pytorch.checking import (
    SpecMismatch,
    check_example,
    check_outputs,
    check_prepared,
    check_rows,
    lengthened,
    misused,
)
from models.pytorch.cuda import Device
from models.pytorch.device import device_for, place
from models.pytorch.errors import translate
from models.pytorch.execution import DirectExecution, Execution
from models.pytorch.hooks import hooks_of
from models.pytorch.kinds import Made, as_module, materialise
from models.pytorch.packing import pack_linear_layers
from models.pytorch.pipeline import PipelinedExecution
from models.pytorch.tensors import from_numpy
from models.pytorch.tuning import Tuning
from models.pytorch.unbatched import Unbatched
from models.spec import ModelSpec
from models.writing import Guarded, copied, have_changed

log = logging.getLogger(__name__)


def load_module(spec: ModelSpec, made: Made, device: Device | None = None, *, lane_index: int = 0) -> "TorchModel":
    """Moves the module to its device, checks it, and logs the device. Raises `SpecMismatch`, `DoesNotFit`.

    lane_index: the index among the lanes that serve the model in this process, each on its own GPU.
    device: an asynchronous device to use instead of the one that the spec asks for.
    """
    device = device or device_for(spec, lane_index)
    module = as_module(made, device.home if device else torch.device("cpu"))
    kind, asks = type(module).__name__, takes_parameters(module.forward)
    if not spec.batched:
        module = Unbatched(module)
    materialise(spec.name, module, lambda: _sample_tensors(spec, module))
    module, threads = place(spec, module, device)
    packed = pack_linear_layers(module) if _may_pack(spec, device) else 0
    execution = _execution(spec, module, device)
    model = TorchModel(spec, module, execution, device, takes_parameters=asks, packed_layers=packed)
    model.check()
    log.info("model %s: %s on %s, %d thread(s)", spec.name, kind, model.device, threads)
    return model


def _may_pack(spec: ModelSpec, device: Device | None) -> bool:
    """Returns whether the model is on the CPU, its settings allow variants, and its float32 is not to be replaced."""
    return device is None and spec.execution != "eager" and spec.precision == "float32"


def _execution(spec: ModelSpec, module: torch.nn.Module, device: Device | None) -> Execution:
    names = [tensor.name for tensor in spec.outputs]
    hooks = hooks_of(module)
    keep = None if hooks.finish else frozenset(names)
    given = positions(spec) if not hooks.prepare else None
    if device:
        return PipelinedExecution(module, device, names, keep, given)
    return DirectExecution(module, names, keep, given)


def positions(spec: ModelSpec) -> tuple[str, ...] | None:
    """Returns the inputs in the order in which the module takes them; None if every request has all of them."""
    has_optional = any(tensor.optional for tensor in spec.inputs)
    return tuple(tensor.name for tensor in spec.inputs) if has_optional else None


def _sample_tensors(spec: ModelSpec, module: torch.nn.Module) -> list[torch.Tensor]:
    model = TorchModel(spec, module, DirectExecution(module, []))
    return [from_numpy(array) for array in model.try_sample(1, model.lengths()[0]).tensors.values()]


class TorchModel:
    """A module as a `Model`, created by `load_module`. `prepare` and `split` call the user's methods, from any thread.

    device: None for the CPU.
    takes_parameters: `forward` is given the parameters of the batch's requests, which are equal.
    packed_layers: the number of linear layers with packed weights, for `facts`.
    """

    def __init__(
        self,
        spec: ModelSpec,
        module: torch.nn.Module,
        execution: Execution,
        device: Device | None = None,
        *,
        takes_parameters: bool = False,
        packed_layers: int = 0,
    ) -> None:
        self.spec = spec
        self._packed_layers = packed_layers
        self.takes_parameters = takes_parameters
        self.device = device.name if device else "cpu"
        self.asynchronous = execution.asynchronous
        self._execution = execution
        self._tuning = Tuning(spec, module, execution)
        hooks = hooks_of(module)
        self._user_prepare = None if hooks.prepare is None else Guarded(hooks.prepare)
        self._user_finish, self._example = hooks.finish, hooks.example
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
            return self._checked(self._user_prepare(inputs), rows)
        if len(self._inputs) > 1:  # the module takes them by position; clients send them in any order
            inputs = {name: inputs[name] for name in self._inputs if name in inputs}
        if self._fixed:
            return prepare_fixed(inputs)
        return prepare_variable(inputs, self._pads, self._max_length)

    def collate(self, parts: Sequence[Prepared], bucket: Bucket) -> object:
        staged = self._execution.stage(parts, bucket, self._pads)
        return (staged, parts[0].parameters or {}) if self.takes_parameters else staged

    def launch(self, staged: object) -> object:
        try:
            if self.takes_parameters:
                staged, parameters = cast(tuple[object, Mapping[str, object]], staged)
                return self._execution.launch(staged, parameters=parameters)
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

    def split(self, outputs: Tensors, parts: Sequence[Prepared]) -> Sequence[Tensors | BaseException]:
        answers = split_rows(outputs, parts, self._padded_outputs)
        finish = self._user_finish
        if finish is None:
            return answers
        finished: list[Tensors | BaseException] = []
        for answer in answers:
            try:
                finished.append(finish(answer))
            except BaseException as error:
                finished.append(error)
        return finished

    def sample(self, rows: int, length: int) -> Prepared:
        if self._example is not None:
            example = self._example()
            check_example(example, self.spec.inputs)
            return resized(self._try_prepare(example), rows, length, self._pads)
        if self.prepares:
            # It is unknown what the user's `prepare` accepts; one made-up row shows whether it accepts zeros.
            made_up = self._try_prepare(made_up_inputs(self.spec.inputs, 1, self._lengths[0]))
            return resized(made_up, rows, length, self._pads)
        return self.prepare(made_up_inputs(self.spec.inputs, rows, length))

    def _try_prepare(self, inputs: Tensors) -> Prepared:
        if self._user_prepare is None:
            return self.prepare(inputs)
        rows = rows_of(inputs)
        return self._checked(self._user_prepare.tried(inputs), rows)

    def _checked(self, made: Tensors, rows: int) -> Prepared:
        """Checks the result of the module's `prepare` for this many rows. Raises `SpecMismatch`, `InvalidInput`."""
        check_prepared(made, rows)
        return prepare_variable(made, self._pads, self._max_length)

    def lengths(self) -> tuple[int, ...]:
        return self._lengths

    @property
    def tunable(self) -> bool:
        # A graph cannot depend on parameters, and a variant cannot be tried for all of their values.
        return not self.takes_parameters and self._tuning.has_steps()

    def tune(self, measured: Sequence[Bucket], row_ladder: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        return self._tuning.tune(measured, self.sample, self._pads, row_ladder)

    def facts(self) -> dict[str, Any]:
        return {**self._tuning.facts(), "packed_linear_layers": self._packed_layers}

    def close(self) -> None:
        """Drops the module and frees its memory on the device."""
        self._execution.close()
        self._tuning.close()
        self._user_prepare = self._user_finish = self._example = None  # bound methods hold the module
        if self._device:
            self._device.give_back()

    def check(self) -> None:
        """Runs made-up requests through all steps. Raises `SpecMismatch` if the module and its spec do not match.

        Also detects which outputs are as long as the padded inputs, to cut them later.
        """
        shortest = self._lengths[0]
        rows = self._rows_to_check(shortest)
        lengths = {shortest // 2 or 1, shortest} if self._pads else {shortest}
        parts = [self.try_sample(rows, length) for length in sorted(lengths)]
        if needed := self._without_optional(parts[0]):
            self.forward(self.collate([needed], Bucket(rows, needed.length)))
        before = [copied(part.tensors) for part in parts]
        outputs = [self.forward(self.collate([part], Bucket(rows, part.length))) for part in parts]
        if any(have_changed(part.tensors, values) for part, values in zip(parts, before, strict=True)):
            self._execution.writes_inputs = True
        if len(parts) == 2:
            self._padded_outputs = lengthened(outputs[0], parts[0].length, outputs[1], parts[1].length)
        for part, output in zip(parts, outputs, strict=True):
            if self.finishes:
                check_rows(output, rows)
            else:
                check_outputs(output, self.spec.outputs, rows, part.length if self._pads else None)
            (answer,) = self.split(output, [part])
            if isinstance(answer, Exception):
                raise misused("finish", answer) from answer
            if isinstance(answer, BaseException):
                raise answer
            check_outputs(answer, self.spec.outputs, rows, None)

    def _without_optional(self, part: Prepared) -> Prepared | None:
        """Returns the request without its optional inputs; None if there are none, or if the module has a `prepare`,
        which handles them itself."""
        optional = {tensor.name for tensor in self.spec.inputs if tensor.optional}
        if self.prepares or not optional:
            return None
        return self.prepare({name: array for name, array in part.tensors.items() if name not in optional})

    def _rows_to_check(self, length: int) -> int:
        """Returns 2, or 1 if the module cannot compute 2 rows; the warm-up finds this too. Raises the module's error
        for one row."""
        self.forward(self.collate([self.try_sample(1, length)], Bucket(1, length)))
        if self.spec.max_batch_rows == 1:
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
        """Calls `sample`. Raises `SpecMismatch` with an explanation if one of the module's own methods fails."""
        textual = [tensor.name for tensor in self.spec.inputs if tensor.datatype == "BYTES"]
        if textual and not self.prepares:
            raise SpecMismatch(
                f"input {textual[0]!r} is BYTES: the module needs a method `prepare` that converts it to numbers"
            )
        try:
            return self.sample(rows, length)
        except InvalidInput as error:
            hint = "its own `example`" if self._example else "made-up input: give the module a method `example`"
            raise SpecMismatch(f"`prepare` refuses {hint} ({error})") from error
        except SpecMismatch:
            raise
        except Exception as error:
            if not self.prepares:
                raise misused("example", error) from error
            given = "its own example" if self._example else "made-up input (a method `example` gives valid input)"
            raise misused("prepare", error, f"on {given}") from error

    def _raise(self, error: Exception) -> NoReturn:
        translated = translate(error, self._device.works if self._device else lambda: True)
        if translated is error:
            raise error
        raise translated from error

    def __repr__(self) -> str:
        return f"<TorchModel {self.spec.name} on {self.device}>"
