"""Tuning with bf16 and torch.compile: which variant is kept, what is logged, and that the model serves in every case.
The tests set the measured times; all else is real."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.base import Bucket, Collected
from models.pytorch.runner import TorchModel, load_module
from models.pytorch.tuning import Tuning
from models.pytorch.variants import Compiled, variants_for
from models.spec import Limits, ModelSpec, TensorSpec
from serving.cluster.replica.describe import learned
from serving.core.batcher import Batcher
from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes

MEASURED = [Bucket(rows, 1) for rows in (1, 2, 4, 8)]
PLAIN_NS = 1000


class Computing:
    """Replaces the measured time of a batch, by whether it was computed in half precision or by compiled code."""

    def __init__(self, model: TorchModel, module: nn.Module, *, bf16_ns: int, compiled_ns: int) -> None:
        self.module, self.bf16_ns, self.compiled_ns = module, bf16_ns, compiled_ns
        self.compiled_calls = self._seen = 0
        self._collect = model._execution.collect
        model._execution.collect = self.collect  # type: ignore[method-assign]

    def collect(self, launched: object) -> Collected:
        compiled, self._seen = self.compiled_calls > self._seen, self.compiled_calls
        half = any(parameter.dtype == torch.bfloat16 for parameter in self.module.parameters())
        took_ns = self.compiled_ns if compiled else self.bf16_ns if half else PLAIN_NS
        return Collected(self._collect(launched).outputs, compute_ns=took_ns)

    def backend(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        """Replaces the compiler, and leaves the code unchanged."""

        def compiled(*arguments: Any) -> Any:
            self.compiled_calls += 1
            return graph.forward(*arguments)

        return compiled


def tuned(
    module: nn.Module, *, bf16_ns: int = 500, compiled_ns: int = 500, has_bf16: bool = True, **fields: Any
) -> TorchModel:
    vector = partial(TensorSpec, datatype="FP32", shape=(-1, 4))
    spec = ModelSpec(
        name="module",
        factory="somewhere:Module",
        inputs=(vector(name="x"),),
        outputs=(vector(name="y"),),
        limits=Limits(max_batch_rows=8),
        **fields,
    )
    model = load_module(spec, module)
    computing = Computing(model, module, bf16_ns=bf16_ns, compiled_ns=compiled_ns)
    variants = partial(variants_for, supports_bf16=lambda kind: has_bf16, backend=computing.backend)
    model._tuning = Tuning(spec, module, model._execution, variants)
    assert model.tune(MEASURED) is None
    return model


def answer(model: TorchModel, x: np.ndarray) -> np.ndarray:
    part = model.prepare({"x": x})
    return model.forward(model.collate([part], Bucket(part.rows, 1)))["y"]


@pytest.fixture(autouse=True)
def _afresh(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Captures all log messages, and drops compiled code between tests."""
    caplog.set_level(logging.INFO, logger="models")
    yield
    torch.compiler.reset()


X = np.arange(8, dtype=np.float32).reshape(2, 4)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 4)


def test_bf16_without_the_instructions_is_refused_loudly_and_float32_serves(caplog: pytest.LogCaptureFixture) -> None:
    module = linear()
    expected = module(torch.from_numpy(X)).detach().numpy()
    model = tuned(module, has_bf16=False, precision="bf16", tolerance=0.5)
    (record,) = [record for record in caplog.records if "bf16" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "model module: bf16: this CPU has no instructions for it. Serving without"
    assert module.weight.dtype == torch.float32
    assert np.array_equal(answer(model, X), expected)
    assert model.facts()["execution"] == "plain"


def test_bf16_that_is_faster_and_near_enough_is_taken_and_answers_stay_float32() -> None:
    module = linear()
    expected = module(torch.from_numpy(X)).detach().numpy()
    model = tuned(module, precision="bf16", tolerance=0.05)
    assert module.weight.dtype == torch.bfloat16
    found = answer(model, X)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert model.facts()["execution"] == "bf16"
    assert model.facts()["tried"][0]["speedup"] == 2.0


@pytest.mark.parametrize(
    ("bf16_ns", "tolerance", "why"),
    [(500, 1e-6, "outputs are off by"), (990, 0.05, "not faster"), (2000, 0.05, "not faster")],
    ids=["too far off", "no more than noise", "slower"],
)
def test_bf16_that_is_too_far_off_or_not_faster_is_dropped(
    bf16_ns: int, tolerance: float, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    module = linear()
    expected = module(torch.from_numpy(X)).detach().numpy()
    model = tuned(module, bf16_ns=bf16_ns, precision="bf16", tolerance=tolerance)
    assert module.weight.dtype == torch.float32
    assert np.array_equal(answer(model, X), expected)
    assert why in model.facts()["tried"][0]["why"]
    assert f"not kept: {why}" in caplog.text


def test_compiled_code_is_kept_where_it_is_faster(caplog: pytest.LogCaptureFixture) -> None:
    model = tuned(linear(), compiled_ns=400, execution="compiled")
    assert model.facts()["execution"] == "torch.compile"
    assert "torch.compile: 2.50 times as fast: kept" in caplog.text


def test_compiled_code_that_is_slower_than_eager_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    model = tuned(linear(), compiled_ns=1250, execution="compiled")
    assert model.facts()["execution"] == "plain"
    assert "torch.compile: 0.80 times as fast: not kept: not faster" in caplog.text
    assert answer(model, X).shape == (2, 4)


def test_the_kept_variants_and_their_speedups_are_in_the_models_config() -> None:
    model = tuned(linear(), bf16_ns=500, compiled_ns=2000, precision="bf16", tolerance=0.05, execution="compiled")
    engine: Any = SimpleNamespace(
        spec=model.spec,
        model=model,
        batcher=Batcher(LatencyModel(), Sizes(largest_rows=8)),
        budget_ms=10.0,
        intake=None,
    )
    config = learned(engine)
    assert config["execution"] == "bf16"
    tried = [(found["way"], found["kept"], found["speedup"], found["why"]) for found in config["tried"]]
    assert tried == [("bf16", True, 2.0, ""), ("torch.compile", False, 0.25, "not faster")]


def test_a_lane_that_drops_compiled_code_leaves_that_of_another_lane_alone() -> None:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        def compiled(*arguments: Any) -> Any:
            calls.append(1)
            return graph.forward(*arguments)

        return compiled

    module, x = linear(), torch.ones(2, 4)
    kept, dropped = Compiled(backend), Compiled(backend)
    compute = kept.wrap(module)
    compute(x)
    kept.freeze()
    dropped.wrap(module)(x)
    dropped.undo()
    before = len(calls)
    compute(x)
    assert len(calls) == before + 1
