"""Modules without a batch dimension, and modules with optional inputs."""

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, Tensors
from models.pytorch.checking import SpecMismatch
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import ModelSpec, TensorSpec
from serving.core.outcome import Completed, Outcome
from serving.runtime.engine import Engine
from tests.models.test_runner import Returning


def tensor(name: str, *shape: int, datatype: str = "FP32", **more: Any) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape, **more)


def loaded(module: nn.Module, inputs: list[TensorSpec], outputs: list[TensorSpec], on: Any = None) -> TorchModel:
    spec = ModelSpec(name="module", factory="some:Module", inputs=tuple(inputs), outputs=tuple(outputs))
    return load_module(spec, module, on)


def alone(name: str, *shape: int, datatype: str = "FP32") -> TensorSpec:
    return tensor(name, *shape, datatype=datatype, batched=False)


def answers(model: TorchModel, *requests: Tensors) -> list[Tensors]:
    async def story() -> list[Outcome]:
        async with Engine([model]) as engine:
            submitted = [engine.submit(request, rows=1) for request in requests]
            return [await one for one in submitted]

    outcomes = asyncio.run(story())
    assert all(type(outcome) is Completed for outcome in outcomes), outcomes
    return [outcome.value for outcome in outcomes]  # type: ignore[union-attr]


DEVICES = pytest.mark.parametrize("device", [None, ScriptedDevice], ids=["CPU", "asynchronous device"])


@DEVICES
def test_the_module_sees_no_batch_dimension_whatever_it_returns(device: Any) -> None:
    for compute in (lambda a, b: a[:2] + b.sum(), lambda a, b: (a[:2] + b.sum(),), lambda a, b: {"y": a[:2] + b.sum()}):
        inputs = [alone("a", -1), alone("b", 3, -1)]
        model = loaded(Returning(compute), inputs, [alone("y", 2)], device and device())
        requests = [
            {"a": np.arange(size, dtype=np.float32), "b": np.ones((3, size), np.float32)} for size in (2, 5, 9, 5)
        ]
        found = answers(model, *requests)
        assert [answer["y"].tolist() for answer in found] == [[6, 7], [15, 16], [27, 28], [15, 16]]


@DEVICES
def test_a_number_without_any_dimension_goes_in_and_out(device: Any) -> None:
    model = loaded(Returning(lambda a: a * 2), [alone("a")], [alone("y")], device and device())
    (answer,) = answers(model, {"a": np.array(4, np.float32)})
    assert (answer["y"].shape, answer["y"].item()) == ((), 8)


class Texts(nn.Module):
    """A module that counts letters; its `prepare`, `finish` and `example` are given requests without added rows."""

    def prepare(self, inputs: Tensors) -> Tensors:
        assert inputs["text"].ndim == 1
        return {"lengths": np.array([len(text) for text in inputs["text"]], np.int64)}

    def forward(self, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        assert lengths.ndim == 1
        return {"longest": lengths.max(), "all": lengths}

    def finish(self, outputs: Tensors) -> Tensors:
        assert outputs["longest"].ndim == 0
        return {"longest": outputs["longest"], "words": np.array([b"x" * n for n in outputs["all"].tolist()], object)}

    def example(self) -> Tensors:
        return {"text": np.array([b"an", b"example"], object)}


def test_its_own_methods_see_a_request_as_it_was_sent() -> None:
    outputs = [alone("longest", datatype="INT64"), alone("words", -1, datatype="BYTES")]
    model = loaded(Texts(), [alone("text", -1, datatype="BYTES")], outputs)
    (answer,) = answers(model, {"text": np.array([b"a", b"bcd", b""], object)})
    assert (answer["longest"].item(), answer["words"].tolist()) == (3, [b"x", b"xxx", b""])


def test_a_wrong_shape_is_reported_in_the_form_of_the_declared_shapes() -> None:
    with pytest.raises(SpecMismatch, match=r"declared \[3\], but comes as \[4\]"):
        loaded(Returning(lambda a: a), [alone("a", 4)], [alone("y", 3)])


ROWS = [tensor("a", -1, 2), tensor("mask", -1, 2, optional=True)]


@DEVICES
def test_requests_that_leave_an_input_out_never_share_a_batch_with_others(device: Any) -> None:
    seen: list[tuple[int, bool]] = []

    def compute(a: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        seen.append((len(a), mask is None))
        return a if mask is None else a * mask

    model = loaded(Returning(compute), ROWS, [tensor("y", -1, 2)], device and device())
    row = np.array([[1, 2]], np.float32)
    requests = [{"a": row}, {"mask": row * 3, "a": row}] * 4
    found = answers(model, *requests)
    assert [answer["y"].tolist() for answer in found] == [[[1, 2]], [[3, 12]]] * 4
    assert any(is_missing for _, is_missing in seen[1:])  # after the check at load


def test_a_module_that_cannot_do_without_an_optional_input_is_found_out_when_it_is_loaded() -> None:
    with pytest.raises(Exception, match="NoneType"):
        loaded(Returning(lambda a, mask: a * mask), ROWS, [tensor("y", -1, 2)])


def test_a_request_with_all_inputs_still_equals_one_alone() -> None:
    model = loaded(Returning(lambda a, mask: a if mask is None else a * mask), ROWS, [tensor("y", -1, 2)])
    part = model.prepare({"a": np.ones((1, 2), np.float32)})
    (answer,) = model.split(model.forward(model.collate([part], Bucket(1, 1))), [part])
    assert answer["y"].tolist() == [[1, 1]]
