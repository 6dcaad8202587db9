"""Serving the PyTorch objects that factories return: TorchScript, exported programs, lazy layers, autograd in
`forward`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, Tensors
from models.loading import load_model
from models.pytorch.checking import SpecMismatch
from models.pytorch.kinds import Made
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import Limits, ModelSpec, TensorSpec
from models.testing import assert_batched_equals_unbatched

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROW = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)


def spec_of(**fields: Any) -> ModelSpec:
    fields.setdefault("factory", "somewhere:Module")
    return ModelSpec(
        name="module",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 3)),),
        **fields,
    )


def answer(model: Any, x: np.ndarray = ROW) -> np.ndarray:
    part = model.prepare({"x": x})
    found: Tensors = model.forward(model.collate([part], Bucket(part.rows, part.length)))
    return found["y"]


class Network(nn.Module):
    """A network with seeded weights, and with dropout that must be off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def expected() -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = Network().eval()(torch.from_numpy(ROW)).numpy()
    return found


def traced(module: nn.Module) -> Any:
    return torch.jit.trace(module, torch.ones(2, 4))


def frozen(module: nn.Module) -> Any:
    return torch.jit.freeze(torch.jit.script(module))


def through_a_file(script: Any, file: Path) -> Any:
    torch.jit.save(script, file)
    return torch.jit.load(file)


@pytest.mark.parametrize("compile_it", [traced, torch.jit.script, frozen], ids=["traced", "scripted", "frozen"])
def test_a_torchscript_file_is_served(compile_it: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    model = load_module(spec_of(), through_a_file(compile_it(Network().eval()), tmp_path / "net.pt"))
    np.testing.assert_allclose(answer(model), expected(), rtol=1e-6)
    assert_batched_equals_unbatched(model)


def test_a_torchscript_file_in_training_mode_is_served_in_evaluation_mode(tmp_path: Path) -> None:
    model = load_module(spec_of(), through_a_file(torch.jit.script(Network().train()), tmp_path / "net.pt"))
    np.testing.assert_allclose(answer(model), expected(), rtol=1e-6)


def test_a_torchscript_file_is_served_without_a_line_of_python(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Network().eval()), tmp_path / "net.pt")
    spec = spec_of(factory="torch.jit:load", options={"f": "net.pt"}, folder=str(tmp_path))
    np.testing.assert_allclose(answer(load_model(spec)), expected(), rtol=1e-6)


@pytest.mark.parametrize("device", [None, ScriptedDevice()], ids=["directly", "through a pipeline"])
def test_an_exported_program_is_served(device: Any, tmp_path: Path) -> None:
    program = torch.export.export(
        Network().eval(), (torch.ones(2, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    spec = spec_of(factory="torch.export:load", options={"f": "net.pt2"}, folder=str(tmp_path))
    if device is None:
        model: Any = load_model(spec)
    else:
        model = load_module(spec, torch.export.load(tmp_path / "net.pt2"), device)
    np.testing.assert_allclose(answer(model), expected(), rtol=1e-6)
    assert_batched_equals_unbatched(model)


def exported_for(rows: int) -> Made:
    return torch.export.export(Network().eval(), (torch.ones(rows, 4),))


def test_a_program_exported_for_one_row_is_served_row_by_row() -> None:
    model = load_module(spec_of(), exported_for(1))
    np.testing.assert_allclose(answer(model), expected(), rtol=1e-6)


def test_a_program_exported_for_some_other_number_of_rows_is_refused_with_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"size\(\)\[0\] == 8.* Export it with a first dimension of any size"):
        load_module(spec_of(), exported_for(8))


def test_other_modules_that_torch_makes_are_served() -> None:
    graph = torch.fx.symbolic_trace(Network().eval())
    np.testing.assert_allclose(answer(load_module(spec_of(), graph)), expected(), rtol=1e-6)
    compiled: Any = torch.compile(Network(), backend="eager")
    np.testing.assert_allclose(answer(load_module(spec_of(), compiled)), expected(), rtol=1e-6)
    quantized = torch.ao.quantization.quantize_dynamic(Network().eval(), {nn.Linear}, dtype=torch.qint8)
    np.testing.assert_allclose(answer(load_module(spec_of(), quantized)), expected(), atol=0.05)


def test_lazy_layers_get_their_weights_by_one_forward_pass(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="models"):
        model = load_module(spec_of(), nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()))
    assert answer(model).shape == (1, 3)
    assert caplog.messages == [
        "model module: its lazy layers get random weights, since the factory loaded none for them"
    ]
    assert_batched_equals_unbatched(model)


def test_lazy_layers_whose_weights_were_loaded_keep_them(caplog: pytest.LogCaptureFixture) -> None:
    lazy = nn.Sequential(nn.LazyLinear(3))
    weights = {"0.weight": torch.ones(3, 4), "0.bias": torch.zeros(3)}
    lazy.load_state_dict(weights)
    with caplog.at_level(logging.WARNING, logger="models"):
        model = load_module(spec_of(), lazy)
    assert answer(model).tolist() == [[10.0, 10.0, 10.0]]
    assert not caplog.messages


def test_lazy_layers_behind_a_prepare_are_given_what_it_prepares() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LazyLinear(3)

        def prepare(self, inputs: Tensors) -> Tensors:
            return {"wide": np.concatenate([inputs["x"], inputs["x"]], axis=1)}

        def forward(self, wide: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.layer(wide)
            return result

    module = Wider()
    load_module(spec_of(), module)
    assert module.layer.weight.shape == (3, 8)


def test_weights_that_exist_nowhere_are_refused() -> None:
    with pytest.raises(SpecMismatch, match="weights on the device `meta` have no values"):
        load_module(spec_of(), nn.Linear(4, 3, device="meta"))


class Saliency(nn.Module):
    """Returns the gradient of the output with respect to each input. The given context is that of its autograd."""

    def __init__(self, *contexts: Callable[[], Any], backward: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        nn.init.constant_(self.layer.weight, 2.0)
        self._contexts, self._backward = contexts, backward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        from contextlib import ExitStack

        with ExitStack() as stack:
            for context in self._contexts:
                stack.enter_context(context())
            x = x.clone().requires_grad_(True)
            total = self.layer(x).sum()
            if self._backward:
                total.backward()
                assert x.grad is not None
                return x.grad[:, :3]
            return torch.autograd.grad(total, x)[0][:, :3]


@pytest.mark.parametrize("contexts", [(), (torch.enable_grad,), (lambda: torch.inference_mode(False),)])
@pytest.mark.parametrize("backward", [False, True])
def test_a_model_that_uses_autograd_gets_an_error_with_advice(contexts: Any, backward: bool) -> None:
    module = Saliency(*contexts, backward=backward)
    if contexts and contexts[0] is not torch.enable_grad:
        assert answer(load_module(spec_of(), module)).tolist() == [[2.0, 2.0, 2.0]]
        return
    with pytest.raises(RuntimeError, match=r"with torch\.inference_mode\(False\), torch\.enable_grad\(\):.*x\.clone"):
        load_module(spec_of(), module)


@pytest.mark.parametrize("device", [None, ScriptedDevice()], ids=["directly", "through a pipeline"])
@pytest.mark.parametrize("backward", [False, True])
def test_a_model_that_follows_this_advice_is_served_with_autograd(device: Any, backward: bool) -> None:
    module = Saliency(lambda: torch.inference_mode(False), torch.enable_grad, backward=backward)
    model = load_module(spec_of(), module, device)
    assert answer(model).tolist() == [[2.0, 2.0, 2.0]]
    assert_batched_equals_unbatched(model)


def test_a_tensor_on_another_device_gives_an_error_with_advice() -> None:
    """Raises the GPU's error text, since no GPU is needed for the test."""

    class OnTheHost(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!\nmore"
            )

    with pytest.raises(RuntimeError, match=r"cuda:0 and cpu\. .* on `x\.device`. .* `map_location`$"):
        load_module(spec_of(), OnTheHost())


def test_gradients_by_functional_transforms_need_nothing() -> None:
    class Functional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.func.vmap(torch.func.grad(lambda row: (row**2).sum()))(x)
            return found[:, :3]

    assert answer(load_module(spec_of(), Functional())).tolist() == [[2.0, 4.0, 6.0]]


def test_a_model_that_cannot_compute_two_rows_is_loaded_without_a_limit_of_one() -> None:
    def only_one(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise RuntimeError("batch size must be 1")
        return x[:, :3]

    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return only_one(x)

    assert answer(load_module(spec_of(), Picky())).tolist() == [[1.0, 2.0, 3.0]]
    assert isinstance(load_module(spec_of(limits=Limits(max_batch_rows=1)), Picky()), TorchModel)
