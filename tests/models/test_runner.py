"""Running a user's module: its inputs, its results, and the errors for wrong results."""

import logging
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, DeviceLost, InvalidInput, OutOfDeviceMemory, Tensors
from models.loading import load_model
from models.pytorch.checking import SpecMismatch
from models.pytorch.cuda import Device
from models.pytorch.errors import cuda_works
from models.pytorch.execution import DirectExecution
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.spec import Limits, ModelSpec, Resources, TensorSpec
from models.testing import assert_batched_equals_unbatched

ON_GPU = pytest.param(1.0, marks=pytest.mark.gpu)


def tensor(name: str, *shape: int, datatype: str = "FP32", pad: float | None = None) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=(-1, *shape), pad=pad)


def spec_of(inputs: list[TensorSpec], outputs: list[TensorSpec], **fields: Any) -> ModelSpec:
    return ModelSpec(name="module", factory="somewhere:Module", inputs=tuple(inputs), outputs=tuple(outputs), **fields)


def loaded(module: nn.Module, inputs: list[TensorSpec], outputs: list[TensorSpec], **fields: Any) -> TorchModel:
    return load_module(spec_of(inputs, outputs, **fields), module)


def answer(model: TorchModel, **inputs: np.ndarray) -> Tensors:
    part = model.prepare(inputs)
    return model.split(model.forward(model.collate([part], Bucket(part.rows, part.length))), [part])[0]


class Returning(nn.Module):
    """A module that calls the given function."""

    def __init__(self, compute: Any) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.compute(*inputs)


ROW = np.array([[1.0, 2.0]], np.float32)


@pytest.mark.parametrize(
    "compute",
    [lambda a, b: (a + b, a - b), lambda a, b: {"minus": a - b, "plus": a + b, "not declared": a}],
    ids=["a tuple in declared order", "a dict by name"],
)
def test_inputs_are_positional_whatever_their_order_and_outputs_are_named(compute: Any) -> None:
    model = loaded(Returning(compute), [tensor("a", 2), tensor("b", 2)], [tensor("plus", 2), tensor("minus", 2)])
    found = answer(model, b=ROW, a=10 * ROW)
    assert {name: array.tolist() for name, array in found.items()} == {"plus": [[11, 22]], "minus": [[9, 18]]}
    assert_batched_equals_unbatched(model)


@pytest.mark.parametrize("gpus", [0.0, ON_GPU])
def test_a_single_tensor_takes_the_declared_name(gpus: float) -> None:
    model = loaded(nn.Linear(2, 3), [tensor("x", 2)], [tensor("y", 3)], resources=Resources(gpus=gpus))
    assert answer(model, x=ROW)["y"].shape == (1, 3)
    assert_batched_equals_unbatched(model)


def test_read_only_and_half_precision_inputs_are_taken_as_they_are() -> None:
    read_only = np.frombuffer(ROW.tobytes(), np.float32).reshape(1, 2)
    model = loaded(Returning(lambda x: 2 * x), [tensor("x", 2)], [tensor("y", 2)])
    assert answer(model, x=read_only)["y"].tolist() == [[2, 4]]
    half = [tensor("x", 2, datatype="BF16")], [tensor("y", 2, datatype="BF16")]
    found = answer(loaded(Returning(lambda x: 2 * x), *half), x=ROW.astype(ml_dtypes.bfloat16))["y"]
    assert found.dtype == ml_dtypes.bfloat16
    assert found.tolist() == [[2, 4]]


def test_dropout_is_off_and_nothing_is_recorded_for_training() -> None:
    seen: list[bool] = []

    def compute(x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_inference_mode_enabled())
        return x

    model = loaded(nn.Sequential(nn.Dropout(0.9), Returning(compute)), [tensor("x", 2)], [tensor("y", 2)])
    assert answer(model, x=ROW)["y"].tolist() == ROW.tolist()
    assert all(seen)


class Doubler(nn.Module):
    """A module from text to text: it doubles one number for each character."""

    pad = {"codes": 0}  # noqa: RUF012
    max_length = 40

    def prepare(self, inputs: Tensors) -> Tensors:
        texts = inputs["text"][:, 0]
        if any(not text for text in texts):
            raise InvalidInput("text: must not be empty")
        codes = np.zeros((len(texts), max(map(len, texts))), np.uint8)
        for row, text in enumerate(texts):
            codes[row, : len(text)] = np.frombuffer(text, np.uint8)
        return {"codes": codes, "length": np.array([[len(text)] for text in texts])}

    def forward(self, codes: torch.Tensor, length: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"upper": torch.where(codes >= 97, codes - 32, codes), "length": length}

    def finish(self, outputs: Tensors) -> Tensors:
        rows = zip(outputs["upper"], outputs["length"][:, 0], strict=True)
        return {"upper": np.array([[bytes(codes[:length])] for codes, length in rows], dtype=object)}

    def example(self) -> Tensors:
        return {"text": np.array([[b"example"]], dtype=object)}


TEXT = [tensor("text", 1, datatype="BYTES")]
UPPER = [tensor("upper", 1, datatype="BYTES")]


def texts(*values: bytes) -> np.ndarray:
    return np.array([[value] for value in values], dtype=object)


def test_prepare_and_finish_translate_and_lengths_may_differ_within_a_batch() -> None:
    model = loaded(Doubler(), TEXT, UPPER)
    assert (model.prepares, model.finishes, model.lengths()) == (True, True, (16, 24, 32, 40))
    assert answer(model, text=texts(b"headway"))["upper"].tolist() == [[b"HEADWAY"]]
    requests = [{"text": texts(b"a")}, {"text": texts(b"bus", b"departs")}, {"text": texts(b"longer than sixteen")}]
    assert_batched_equals_unbatched(model, requests)
    assert len({model.prepare(request).group for request in requests}) == 1


def test_an_input_that_prepare_refuses_or_that_is_too_long_is_the_clients_fault() -> None:
    model = loaded(Doubler(), TEXT, UPPER)
    with pytest.raises(InvalidInput, match="must not be empty"):
        model.prepare({"text": texts(b"")})
    with pytest.raises(InvalidInput, match="length of 41; the model takes up to 40"):
        model.prepare({"text": texts(b"x" * 41)})


def test_an_output_as_long_as_the_input_is_cut_to_the_requests_own_length() -> None:
    inputs, outputs = [tensor("x", -1, pad=0.0)], [tensor("y", -1), tensor("first", 16)]
    model = loaded(Returning(lambda x: (2 * x, x[:, :1].expand(-1, 16))), inputs, outputs)
    parts = [model.prepare({"x": np.ones((1, length), np.float32)}) for length in (3, 16)]
    found = model.split(model.forward(model.collate(parts, Bucket(2, 16))), parts)
    assert [one["y"].shape for one in found] == [(1, 3), (1, 16)]
    assert [one["first"].shape for one in found] == [(1, 16), (1, 16)]  # a width that happens to equal the length
    assert_batched_equals_unbatched(model, [part.tensors for part in parts])


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda x: {"z": x}, "output 'y' is missing; there are: none"),
        (lambda x: x.double(), "declared FP32, but comes as FP64"),
        (lambda x: x.sum(0, keepdim=True), r"shape \[1, 2\] for 2 rows"),
        (lambda x: x.sum(), r"shape \[\] for 2 rows"),
        (lambda x: x[:, :1], r"declared \[-1, 2\], but comes as \[2, 1\]"),
    ],
)
def test_an_output_that_is_not_as_declared_stops_the_start(compute: Any, words: str) -> None:
    with pytest.raises(SpecMismatch, match=words):
        loaded(Returning(compute), [tensor("x", 2)], [tensor("y", 2)])


def test_a_wrong_kind_or_number_of_outputs_stops_the_start() -> None:
    with pytest.raises(ValueError, match=r"returned 2 tensor\(s\), but 1 are declared: y"):
        loaded(Returning(lambda x: (x, x)), [tensor("x", 2)], [tensor("y", 2)])
    with pytest.raises(TypeError, match="forward returned a str"):
        loaded(Returning(lambda x: "y"), [tensor("x", 2)], [tensor("y", 2)])


def test_bytes_without_prepare_and_prepare_without_example_are_explained() -> None:
    with pytest.raises(SpecMismatch, match="'text' is BYTES: the module needs a method `prepare`"):
        loaded(Returning(lambda x: x), TEXT, [tensor("y", 2)])

    class NoExample(Doubler):
        example = None  # type: ignore[assignment]

    with pytest.raises(SpecMismatch, match="give the module a method `example`"):
        loaded(NoExample(), TEXT, UPPER)


def test_a_model_that_takes_one_row_at_a_time_is_tried_with_one() -> None:
    def only_one(x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 1
        return x

    loaded(Returning(only_one), [tensor("x", 2)], [tensor("y", 2)], limits=Limits(max_batch_rows=1))


def test_a_module_is_found_by_its_import_string() -> None:
    spec = spec_of([tensor("x", 2)], [tensor("y", 3)])
    spec = ModelSpec(
        name="linear",
        factory="torch.nn:Linear",
        options={"in_features": 2, "out_features": 3},
        inputs=spec.inputs,
        outputs=spec.outputs,
    )
    assert repr(load_model(spec)) == "<TorchModel linear on cpu>"


def failing(error: Exception, device: Device | None = None) -> TorchModel:
    """Returns a model whose module raises this error. device: reports whether it still works."""

    def compute(x: torch.Tensor) -> torch.Tensor:
        raise error

    spec = spec_of([tensor("x", 2)], [tensor("y", 2)])
    return TorchModel(spec, nn.Identity(), DirectExecution(compute, ["y"]), device)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), OutOfDeviceMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 TB"), OutOfDeviceMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), OutOfDeviceMemory),
        (RuntimeError("CUDA error: device-side assert triggered\nhint"), DeviceLost),
        (RuntimeError("CUDA driver error: an illegal memory access was encountered"), DeviceLost),
        (RuntimeError("Triton Error [CUDA]: unspecified launch failure"), DeviceLost),
        (RuntimeError("Triton Error [CUDA]: out of memory"), OutOfDeviceMemory),
        (RuntimeError("shape mismatch"), RuntimeError),
        (KeyError("x"), KeyError),
    ],
)
def test_errors_of_torch_are_classified(error: Exception, expected: type[Exception]) -> None:
    lost = ScriptedDevice()
    lost.lost = True
    with pytest.raises(expected) as raised:
        failing(error, lost).forward({"x": ROW})
    assert type(raised.value) is expected
    assert "\n" not in str(raised.value)


def test_of_several_gpus_the_one_that_failed_is_asked_whether_it_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def synchronize(device: torch.device) -> None:
        asked.append(device)
        raise RuntimeError("CUDA error: device-side assert triggered")

    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    second = torch.device("cuda", 1)
    assert not cuda_works(second)
    assert asked == [second]


def test_a_device_that_still_answers_is_not_given_up() -> None:
    error = RuntimeError("CUDA error: invalid configuration argument")
    with pytest.raises(RuntimeError, match="invalid configuration"):
        failing(error, ScriptedDevice()).forward({"x": ROW})


def test_the_cpu_really_running_out_of_memory_is_recognised() -> None:
    huge = Returning(lambda x: x if x.sum() == 0 else torch.empty((1 << 50,)))
    model = loaded(huge, [tensor("x", 2, datatype="INT32")], [tensor("y", 2, datatype="INT32")])
    part = model.prepare({"x": np.ones((1, 2), np.int32)})
    with pytest.raises(OutOfDeviceMemory):
        model.forward(model.collate([part], Bucket(1, 1)))


@pytest.mark.gpu
def test_a_gpu_that_is_full_says_so_and_goes_on() -> None:
    hungry = Returning(lambda x: x if x.sum() == 0 else torch.empty((1 << 50,), device=x.device))
    inputs, outputs = [tensor("x", 2, datatype="INT32")], [tensor("y", 2, datatype="INT32")]
    model = loaded(hungry, inputs, outputs, resources=Resources(gpus=1))
    with pytest.raises(OutOfDeviceMemory):
        answer(model, x=np.ones((1, 2), np.int32))
    assert answer(model, x=np.zeros((1, 2), np.int32))["y"].tolist() == [[0, 0]]


def test_a_closed_model_computes_no_more() -> None:
    model = loaded(nn.Linear(2, 3), [tensor("x", 2)], [tensor("y", 3)])
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.forward({"x": ROW})


def test_the_device_of_a_model_is_logged_when_it_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="models"):
        loaded(nn.Linear(2, 3), [tensor("x", 2)], [tensor("y", 3)])
    assert caplog.messages == ["model module: Linear on cpu, 1 thread(s)"]
