"""Variants of computing a module, on the CPU, and the differences of their outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, Prepared, Tensors
from models.pytorch.comparing import difference, shuffled
from models.pytorch.runner import load_module
from models.pytorch.variants import Bfloat16, ChannelsLast, Compiled, cpu_has_bf16
from models.spec import ModelSpec, TensorSpec

MEASURED = [Bucket(rows, 1) for rows in (1, 2, 4, 8)]
needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 instructions")


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec(
        name="module",
        factory="somewhere:Module",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
        **fields,
    )


@pytest.mark.parametrize(
    ("expected", "actual", "off"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.04, -4.0], 0.01),
        ([0.0, 0.0], [0.5, 0.0], 0.5),
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [1.0, np.nan], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
        ([], [], 0.0),
    ],
)
def test_the_difference_is_a_share_of_the_largest_value(expected: list, actual: list, off: float) -> None:
    found = difference({"y": np.array(expected)}, {"y": np.array(actual)})
    assert found == pytest.approx(off)


def test_integers_differ_by_the_share_of_differing_elements_and_other_names_or_types_infinitely() -> None:
    labels = np.array([1, 2, 3, 4])
    assert difference({"y": labels}, {"y": np.array([1, 2, 3, 5])}) == 0.25
    assert difference({"y": labels}, {"z": labels}) == np.inf
    assert difference({"y": labels}, {"y": labels.astype(np.float32)}) == np.inf


def test_a_shuffled_request_has_the_same_values_in_other_places() -> None:
    part = Prepared({"x": np.arange(6).reshape(2, 3)}, 2, None, 1)
    found = shuffled(part).tensors["x"]
    assert sorted(found.ravel()) == list(range(6))
    assert not np.array_equal(found, part.tensors["x"])


def test_the_instruction_set_is_read_from_the_processors_flags(tmp_path: Path) -> None:
    for flags, expected in (("fpu avx512_bf16 sse", True), ("amx_bf16", True), ("avx512f avx512_bf161", False)):
        (tmp_path / "cpuinfo").write_text(f"model name: any\nflags\t\t: {flags}\n")
        assert cpu_has_bf16(tmp_path / "cpuinfo") is expected
    assert cpu_has_bf16(tmp_path / "missing") is False


@needs_bf16
def test_bf16_is_near_has_the_types_of_before_and_can_be_undone() -> None:
    module = nn.Sequential(nn.Linear(4, 64), nn.LayerNorm(64), nn.Linear(64, 4)).requires_grad_(False)
    x = torch.randn(3, 4)
    plain: Tensors = {"y": module(x).numpy()}
    variant = Bfloat16(module, ["y"], plain)
    found = {"y": variant.wrap(module)(x)["y"].numpy()}
    assert module[0].weight.dtype == torch.bfloat16
    assert module[1].weight.dtype == torch.float32
    assert 0 < difference(plain, found) < 0.05
    variant.undo()
    assert np.array_equal(module(x).numpy(), plain["y"])


def test_channels_last_changes_the_layout_and_no_answer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval().requires_grad_(False)
    x = torch.randn(2, 3, 8, 8)
    plain = module(x)
    variant = ChannelsLast(module)
    assert torch.allclose(variant.wrap(module)(x), plain, atol=1e-5)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    variant.undo()
    assert module[0].weight.is_contiguous()


@needs_bf16
def test_a_precision_out_of_tolerance_is_refused_and_undone(caplog: pytest.LogCaptureFixture) -> None:
    module = nn.Linear(4, 4)
    model = load_module(spec_of(precision="bf16", tolerance=1e-6), module)
    assert model.tunable
    assert model.tune(MEASURED) is None
    assert "bf16" in caplog.text
    assert "the tolerance is 1e-06" in caplog.text
    assert module.weight.dtype == torch.float32


def test_a_module_that_cannot_be_compiled_serves_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Uncompilable(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.compiler.is_compiling():
                raise RuntimeError("not for compilers")
            return 2 * x

    model = load_module(spec_of(execution="compiled"), Uncompilable())
    assert model.tune(MEASURED) is None
    assert model.facts()["execution"] == "plain"
    assert "torch.compile" in caplog.text
    assert model.forward({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[2.0] * 4]


def test_shapes_that_were_not_compiled_at_load_are_not_compiled_in_service() -> None:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(1)
        return graph.forward

    variant = Compiled(backend=backend)
    compute = variant.wrap(lambda x: 2 * x)
    compute(torch.ones(3, 4))
    variant.freeze()
    compiled = len(calls)
    assert compiled >= 1
    assert compute(torch.ones(3, 4, 5)).shape == (3, 4, 5)
    assert len(calls) == compiled
    variant.undo()
