"""The choice of the variant: it must be correct and faster, and the model serves in every case."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from models.base import Bucket, Collected
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.scripted import ScriptedDevice
from models.pytorch.tuning import shapes_that_matter, useful_ladder, with_midpoints
from models.spec import ModelSpec, TensorSpec

MEASURED = [Bucket(rows, 1) for rows in (1, 2, 4, 8)]


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec(
        name="module",
        factory="somewhere:Module",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),),
        **fields,
    )


def times(**by_rows: float) -> dict[Bucket, int]:
    return {Bucket(int(rows[1:]), 1): int(1000 * took) for rows, took in by_rows.items()}


def test_a_size_that_saves_less_than_two_percent_against_the_next_larger_is_dropped() -> None:
    assert useful_ladder(times(_1=1.0, _2=1.01, _4=1.02, _8=2.0)) == (4, 8)
    assert useful_ladder(times(_1=1.0, _2=1.5, _4=2.0)) == (1, 2, 4)
    assert useful_ladder(times(_8=1.0)) == (8,)
    assert useful_ladder({}) == ()


def test_a_size_stays_if_any_length_needs_it() -> None:
    flat = {Bucket(rows, 16): 1000 for rows in (1, 2, 4)}
    rising = {Bucket(rows, 64): 1000 * rows for rows in (1, 2)}
    assert useful_ladder(flat) == (4,)
    assert useful_ladder(flat | rising) == (1, 2, 4)  # 4 rows of 64 were not measured: 2 may be the most


def test_small_savings_that_add_up_keep_a_size_in_between() -> None:
    kept = useful_ladder(times(_1=0.95, _2=0.965, _4=0.985, _8=1.0))
    assert kept == (2, 8)  # each step saves under 2 %, two of them more


def test_sizes_halfway_between_powers_of_two_are_tried_too() -> None:
    assert [bucket.rows for bucket in with_midpoints([Bucket(1, 1), Bucket(16, 1)])] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert [bucket.rows for bucket in with_midpoints([Bucket(5, 1)])] == [1, 2, 3, 4, 5]


def test_the_shapes_that_matter_are_the_corners() -> None:
    measured = [Bucket(rows, length) for length in (16, 32, 64) for rows in (1, 2, 4)]
    assert shapes_that_matter(measured) == [Bucket(1, 16), Bucket(4, 16), Bucket(1, 64), Bucket(4, 64)]
    assert shapes_that_matter([Bucket(1, 1)]) == [Bucket(1, 1)]


class Timed:
    """Replaces the measured time of a batch, by whether a graph was replayed."""

    def __init__(
        self, model: TorchModel, device: ScriptedDevice, eager_ns: int, graph_ns: Callable[[int], int]
    ) -> None:
        self.execution = model._execution
        self.inner = self.execution.collect
        self.eager_ns, self.graph_ns = eager_ns, graph_ns
        self.execution.collect = self.collect  # type: ignore[method-assign]
        self.device = device

    def collect(self, launched: Any) -> Collected:
        before = self.device.counts["replay"]
        outputs = self.inner(launched).outputs
        replayed = self.device.counts["replay"] > before
        rows = len(next(iter(outputs.values())))
        return Collected(outputs, 0, self.graph_ns(rows) if replayed else self.eager_ns)


def tuned(
    module: nn.Module, graph_ns: Callable[[int], int], eager_ns: int = 1000, **fields: Any
) -> tuple[TorchModel, tuple[int, ...] | None, ScriptedDevice]:
    device = ScriptedDevice()
    model = load_module(spec_of(**fields), module, device)
    Timed(model, device, eager_ns, graph_ns)
    return model, model.tune(MEASURED), device


def test_graphs_win_where_they_are_faster_and_only_useful_sizes_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="models"):
        model, ladder, _ = tuned(nn.Linear(4, 4), lambda rows: 100 * max(rows, 4))
    assert ladder == (4, 6, 8)
    facts = model.facts()
    assert (facts["execution"], facts["graphs"]) == ("CUDA graphs", 3)
    assert facts["tried"][0]["speedup"] == pytest.approx(1000 / (400 * 800) ** 0.5, rel=0.01)
    assert "CUDA graphs: 1.77 times as fast: kept" in caplog.text
    assert "3 graphs; batches are padded to (4, 6, 8) rows" in caplog.text


def test_graphs_that_are_not_faster_are_dropped_and_any_number_of_rows_will_do() -> None:
    model, ladder, device = tuned(nn.Linear(4, 4), lambda rows: 990)
    assert ladder is None
    assert model.facts()["execution"] == "plain"
    assert model.facts()["tried"][0]["why"] == "not faster"
    before = device.counts["replay"]
    model.forward(model.collate([model.sample(4, 1)], Bucket(4, 1)))
    assert device.counts["replay"] == before


class Forgetful(nn.Module):
    """A module that repeats its first answers, like a graph over stale memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[int, torch.Tensor] = {}
        self.captured = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.captured:
            return 2 * x
        return self.first.setdefault(len(x), 2 * x.clone())


def test_a_fast_variant_with_wrong_answers_is_dropped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    device = ScriptedDevice(
        on_step=lambda kind, number: setattr(module, "captured", module.captured or kind == "capture")
    )
    module = Forgetful()
    model = load_module(spec_of(), module, device)
    Timed(model, device, 1000, lambda rows: 10)
    assert model.tune(MEASURED) is None
    assert "outputs are off by" in caplog.text
    assert model.facts()["execution"] == "plain"


def test_a_capture_that_fails_leaves_a_model_that_serves(caplog: pytest.LogCaptureFixture) -> None:
    def fail(kind: str, number: int) -> None:
        if kind == "capture":
            raise RuntimeError("operation not permitted when stream is capturing")

    device = ScriptedDevice(on_step=fail)
    model = load_module(spec_of(), nn.Linear(4, 4), device)
    assert model.tune(MEASURED) is None
    assert "CUDA graphs: RuntimeError: operation not permitted when stream is capturing. Serving without" in caplog.text
    assert model.forward(model.collate([model.sample(2, 1)], Bucket(2, 1)))["y"].shape == (2, 4)


def test_memory_that_runs_out_while_capturing_leaves_the_graphs_there_are(caplog: pytest.LogCaptureFixture) -> None:
    captures_of_probes = 4  # one row and eight, in two slots each

    def fail(kind: str, number: int) -> None:
        if kind == "capture" and number >= captures_of_probes + 6:
            raise torch.OutOfMemoryError("CUDA out of memory")

    device = ScriptedDevice(on_step=fail)
    model = load_module(spec_of(), nn.Linear(4, 4), device)
    Timed(model, device, 1000, lambda rows: 10 * rows)
    assert model.tune(MEASURED) == (4, 6, 8)
    assert "no graph for Bucket(rows=3, length=1): OutOfMemoryError" in caplog.text
    for rows in (2, 4):
        assert model.forward(model.collate([model.sample(rows, 1)], Bucket(rows, 1)))["y"].shape == (rows, 4)


def test_a_second_lane_captures_the_ladder_of_the_first() -> None:
    device = ScriptedDevice()
    model = load_module(spec_of(), nn.Linear(4, 4), device)
    Timed(model, device, 1000, lambda rows: 10 * rows)
    assert model.tune(MEASURED, (2, 8)) == (2, 8)
    assert model.facts()["graphs"] == 2


def test_eager_tries_nothing() -> None:
    assert not load_module(spec_of(execution="eager"), nn.Linear(4, 4), ScriptedDevice()).tunable
    assert not load_module(spec_of(), nn.Linear(4, 4)).tunable
