"""The hooks of modules: other attributes of these names are not taken for hooks, and errors in hooks are explained."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, InvalidInput, Tensors
from models.pytorch.checking import SpecMismatch
from models.pytorch.hooks import hooks_of
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import ModelSpec, TensorSpec

NAMES = ("prepare", "finish", "example", "pad", "max_length")
ROW = np.array([[1.0, 2.0, 3.0]], np.float32)


def spec_of(*outputs: str) -> ModelSpec:
    def vector(name: str) -> TensorSpec:
        return TensorSpec(name=name, datatype="FP32", shape=(-1, 3))

    return ModelSpec(
        name="module",
        factory="somewhere:Module",
        inputs=(vector("x"),),
        outputs=tuple(map(vector, outputs or ("y",))),
    )


def answer(model: TorchModel, x: np.ndarray = ROW) -> Tensors:
    part = model.prepare({"x": x})
    return model.split(model.forward(model.collate([part], Bucket(part.rows, part.length))), [part])[0]


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def with_layer(module: nn.Module, name: str) -> None:
    module.add_module(name, nn.Linear(3, 3))


def with_buffer(module: nn.Module, name: str) -> None:
    module.register_buffer(name, torch.zeros(3))


def with_parameter(module: nn.Module, name: str) -> None:
    module.register_parameter(name, nn.Parameter(torch.zeros(3)))


def with_flag(module: nn.Module, name: str) -> None:
    setattr(module, name, True)


def with_text(module: nn.Module, name: str) -> None:
    setattr(module, name, "same")


def with_list(module: nn.Module, name: str) -> None:
    setattr(module, name, [1, 1, 1, 1])


def with_another_method(module: nn.Module, name: str) -> None:
    def another(weights: object, bits: int, *, per_channel: bool) -> None:
        raise AssertionError("not a hook")

    setattr(module, name, another)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "add",
    [with_layer, with_buffer, with_parameter, with_flag, with_text, with_list, with_another_method],
    ids=lambda add: add.__name__,
)
def test_an_attribute_that_only_has_a_hooks_name_is_not_a_hook(
    add: Callable[[nn.Module, str], None], name: str
) -> None:
    module = Doubling()
    add(module, name)
    assert hooks_of(module) == (None, None, None, None, None)
    assert answer(load_module(spec_of(), module))["y"].tolist() == [[2.0, 4.0, 6.0]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_method_takes_tensors_and_is_no_hook() -> None:
    class Scripted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.finish(x)

        @torch.jit.export
        def finish(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    module = torch.jit.script(Scripted())
    assert hooks_of(module).finish is None
    assert answer(load_module(spec_of(), module))["y"].tolist() == [[2.0, 4.0, 6.0]]


def test_hooks_are_recognised_however_they_are_given_to_the_module() -> None:
    class Callable_:
        def __call__(self, inputs: Tensors) -> Tensors:
            return inputs

    class Hooked(Doubling):
        pad = {"x": 0}  # noqa: RUF012
        max_length = 7
        finish = staticmethod(lambda outputs: outputs)

        def prepare(self, inputs: Tensors, verbose: bool = False) -> Tensors:
            return inputs

    module: Any = Hooked()
    module.example = lambda: {"x": ROW}
    found = hooks_of(module)
    assert None not in found
    assert (found.pad, found.max_length) == ({"x": 0}, 7)
    module.prepare = Callable_()
    assert hooks_of(module).prepare is module.prepare


class Preparing(Doubling):
    """A module whose `prepare` calls the given function."""

    def __init__(self, make: Callable[[Tensors], Any]) -> None:
        super().__init__()
        self._make = make

    def prepare(self, inputs: Tensors) -> Any:
        return self._make(inputs)


BAD_PREPARES = [
    (lambda inputs: {"x": inputs["x"].tolist()}, "`prepare` returned a list for 'x'; return a numpy array"),
    (lambda inputs: {"x": torch.ones(2, 3)}, "`prepare` returned a Tensor for 'x'; return a numpy array"),
    (lambda inputs: {"x": np.float32(1)}, "`prepare` returned a float32 for 'x'; return a numpy array"),
    (lambda inputs: {"x": inputs["x"].astype(object)}, "`prepare` returned Python objects for 'x'"),
    (lambda inputs: inputs["x"], "`prepare` returned a ndarray; return a dict of numpy arrays"),
    (lambda inputs: (inputs["x"],), "`prepare` returned a tuple; return a dict of numpy arrays"),
    (lambda inputs: None, "`prepare` returned a NoneType; return a dict of numpy arrays"),
    (lambda inputs: {}, "`prepare` returned an empty dict; return a dict of numpy arrays"),
    (lambda inputs: {"x": inputs["x"][:0]}, r"returned 'x' with shape \[0, 3\] for 1 row\(s\) of input"),
    (lambda inputs: {"x": np.ones((5, 3))}, r"returned 'x' with shape \[5, 3\] for 1 row\(s\) of input"),
    (lambda inputs: {"x": inputs["x"], "mask": np.ones(4)}, r"returned 'mask' with shape \[4\] for 1 row\(s\)"),
    (lambda inputs: {"x": np.array(1.0)}, r"returned 'x' with shape \[\] for 1 row\(s\)"),
]


@pytest.mark.parametrize(("make", "words"), BAD_PREPARES)
def test_a_wrong_result_of_prepare_stops_the_start_with_a_message(make: Any, words: str) -> None:
    with pytest.raises(SpecMismatch, match=words):
        load_module(spec_of(), Preparing(make))


@pytest.mark.parametrize(("make", "words"), BAD_PREPARES)
def test_a_wrong_result_of_prepare_for_one_request_is_the_models_fault(make: Any, words: str) -> None:
    model = load_module(spec_of(), Preparing(lambda inputs: inputs if inputs["x"].max() <= 3 else make(inputs)))
    with pytest.raises(SpecMismatch, match=words):
        model.prepare({"x": 100 * np.abs(ROW)})


@pytest.mark.parametrize("name", ["prepare", "finish", "example"])
def test_a_method_of_a_hooks_name_that_does_something_else_gets_an_error_with_advice(name: str) -> None:
    def helper(*tensors: Any) -> Any:
        return torch.nn.functional.relu(*tensors)

    module: Any = Doubling()
    setattr(module, name, helper)
    with pytest.raises(SpecMismatch, match=rf"`{name}` fails.*: TypeError: .* is meant for something else, rename it"):
        load_module(spec_of(), module)


def test_inputs_of_different_rows_stay_the_clients_fault() -> None:
    model = load_module(spec_of(), Preparing(lambda inputs: {"x": inputs["x"]}))
    with pytest.raises(InvalidInput, match="'x' has 1, 'z' has 2"):
        model.prepare({"x": ROW, "z": np.ones((2, 3), np.float32)})


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (lambda: ROW, "`example` returned a ndarray; return a dict"),
        (lambda: {}, "`example` returned nothing for input 'x'"),
        (lambda: {"x": [[1.0, 2.0, 3.0]]}, "`example` returned a list for input 'x'"),
        (lambda: {"x": torch.ones(1, 3)}, "`example` returned a Tensor for input 'x'"),
    ],
)
def test_a_wrong_result_of_example_stops_the_start_with_a_message(example: Any, words: str) -> None:
    module: Any = Doubling()
    module.example = example
    with pytest.raises(SpecMismatch, match=words):
        load_module(spec_of(), module)


def test_a_finish_that_returns_no_dict_stops_the_start_with_a_message() -> None:
    module: Any = Doubling()
    module.finish = lambda outputs: list(outputs.values())
    with pytest.raises(SpecMismatch, match="`finish` returned a list; return a dict of numpy arrays by output"):
        load_module(spec_of(), module)


class Returning(nn.Module):
    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self._make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self._make(x)


Swapped = namedtuple("Swapped", "second first")
More = namedtuple("More", "hidden second first")
Other = namedtuple("Other", "logits hidden")
HalfSwapped = namedtuple("HalfSwapped", "second other")


@pytest.mark.parametrize(
    "make",
    [lambda x: Swapped(2 * x, x), lambda x: More(None, 2 * x, x), lambda x: Other(x, 2 * x)],
    ids=["in another order", "with more fields", "of other names: by place"],
)
def test_a_named_tuple_is_taken_by_its_names_where_they_are_those_of_the_outputs(make: Any) -> None:
    found = answer(load_module(spec_of("first", "second"), Returning(make)))
    assert (found["first"].tolist(), found["second"].tolist()) == ([[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0]])


def test_a_named_tuple_with_an_output_in_another_place_is_refused_with_its_name() -> None:
    module = Returning(lambda x: HalfSwapped(2 * x, x))
    with pytest.raises(ValueError, match="in which output 'second' is in another place than declared"):
        load_module(spec_of("first", "second"), module)


@pytest.mark.parametrize("device", [None, ScriptedDevice()], ids=["directly", "through a pipeline"])
@pytest.mark.parametrize("value", [[[1.0]], None, 1.0, np.ones((1, 3), np.float32)], ids=repr)
def test_an_output_that_is_no_tensor_is_named(value: Any, device: Any) -> None:
    name = type(value).__name__
    with pytest.raises(TypeError, match=f"forward returned a {name} for output 'second'; return a tensor"):
        load_module(spec_of("first", "second"), Returning(lambda x: {"first": x, "second": value}), device)
