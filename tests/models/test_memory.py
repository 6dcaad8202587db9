"""Memory of a GPU, on the scripted device: checked before it is used, and freed after errors and after closing."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, OutOfDeviceMemory
from models.pytorch.device import DoesNotFit
from models.pytorch.runner import load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import Limits, ModelSpec, Resources, TensorSpec

MEASURED = [Bucket(rows, 1) for rows in (1, 2, 4)]


def spec_of(gpus: float = 1.0) -> ModelSpec:
    return ModelSpec(
        name="module",
        factory="somewhere:Module",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
        limits=Limits(max_batch_rows=4),
        resources=Resources(gpus=gpus),
    )


class Moved(nn.Module):
    """A module with 4096 bytes of weights that records the calls on it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1024), requires_grad=False)
        self.moves: list[object] = []

    def to(self, *where: object) -> "Moved":  # type: ignore[override]
        self.moves += where
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight[:4]


def test_weights_that_do_not_fit_are_not_even_begun_to_be_copied() -> None:
    module, device = Moved(), ScriptedDevice(total_bytes=5000)
    held = device.device_memory(1000)
    with pytest.raises(DoesNotFit, match=r"take 4,096 bytes, and 4,000 of 5,000 are free on scripted"):
        load_module(spec_of(), module, device)
    assert module.moves == []
    del held
    load_module(spec_of(), module, device)
    assert module.moves == [device.home]


def test_a_model_on_half_a_gpu_gets_half_of_its_memory_and_is_held_to_that() -> None:
    module, device = Moved(), ScriptedDevice(total_bytes=8000)
    with pytest.raises(DoesNotFit, match=r"resources.gpus: 0.5 grants it 4,000 of the 8,000"):
        load_module(spec_of(gpus=0.5), module, device)
    assert module.moves == []
    device = ScriptedDevice(total_bytes=9000)
    load_module(spec_of(gpus=0.5), module, device)
    assert device.share == 0.5


@pytest.mark.parametrize("tuned", [False, True], ids=["as it is", "with graphs"])
def test_a_model_that_is_closed_holds_neither_its_module_nor_memory_of_the_device(tuned: bool) -> None:
    device = ScriptedDevice()
    module = nn.Linear(4, 4)
    model = load_module(spec_of(), module, device)
    if tuned:
        model.tune(MEASURED)
    watched = weakref.ref(module)
    del module
    free, total = device.memory()
    assert free < total
    model.close()
    gc.collect()
    assert watched() is None
    assert device.memory() == (total, total)


class Hungry(nn.Module):
    """A module that runs out of memory in the second half of its work if the batch has more than two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.halfway: list[weakref.ref[torch.Tensor]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert all(kept() is None for kept in self.halfway), "what a failed batch had got is still held"
        halfway = x + 1
        self.halfway.append(weakref.ref(halfway))
        return self._rest(halfway)

    def _rest(self, halfway: torch.Tensor) -> torch.Tensor:
        if len(halfway) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return halfway - 1


@pytest.mark.parametrize("device", [None, ScriptedDevice()], ids=["cpu", "scripted"])
def test_memory_of_a_batch_that_ran_out_of_memory_is_free_for_its_halves(device: ScriptedDevice | None) -> None:
    module = Hungry()
    model = load_module(spec_of(gpus=0.0), module, device)
    part = model.prepare({"x": np.ones((4, 4), np.float32)})
    with pytest.raises(OutOfDeviceMemory) as error:
        model.forward(model.collate([part], Bucket(4, 1)))
    assert module.halfway[-1]() is None, "held by the traceback of the error that is still at hand"
    assert "Tried to allocate" in str(error.value)


def test_a_changed_module_is_settled_before_a_batch_is_computed_with_it() -> None:
    """Checks that changes of layout and precision, which run outside the streams of batches, are waited for."""
    steps: list[tuple[str, bool]] = []
    module = nn.Conv2d(4, 4, 3, padding=1).requires_grad_(False)
    device = ScriptedDevice(on_step=lambda kind, number: steps.append((kind, module.weight.is_contiguous())))
    shape = (-1, 4, 8, 8)
    spec = ModelSpec(
        name="image",
        factory="somewhere:Module",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=shape),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=shape),),
        execution="eager",
        channels_last=True,
    )
    load_module(spec, module, device).tune(MEASURED)
    assert {layout for kind, layout in steps if kind == "run"} == {True, False}
    settled = None
    for kind, layout in steps:
        settled = layout if kind == "settle" else settled
        assert kind != "run" or layout == settled, "computed with what was perhaps not there yet"
