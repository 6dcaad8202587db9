"""Tests of a pipelined execution for any asynchronous device. pytest runs them on the scripted device, and on CUDA if
there is a GPU; `python -m tests.models.pipeline_stories` runs them on CUDA without pytest.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import nn

from models.base import Bucket, Prepared
from models.pytorch.cuda import CudaDevice, Device
from models.pytorch.pipeline import SLOTS, PipelinedExecution
from models.pytorch.runner import load_module
from models.spec import ModelSpec, Resources, TensorSpec
from models.testing import assert_batched_equals_unbatched
from tests.telling import tell


def double_and_sign(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two outputs, of different types and sizes."""
    return 2 * x, x.sum(1, keepdim=True) > 0


def execution_on(device: Device, *, graphs: bool = False) -> PipelinedExecution:
    execution = PipelinedExecution(double_and_sign, device, ["double", "positive"])
    for rows in (4, 2, 1) if graphs else ():
        execution.capture(request(0.0, rows), Bucket(rows, 1), {})
    return execution


def request(value: float, rows: int = 1) -> Prepared:
    return Prepared({"x": np.full((rows, 3), value, np.float32)}, rows, None, 1)


def launched(execution: PipelinedExecution, value: float, rows: int = 2) -> object:
    return execution.launch(execution.stage([request(value)], Bucket(rows, 1), {}))


def two_batches_in_flight_never_touch_each_other(device: Device, graphs: bool) -> None:
    execution = execution_on(device, graphs=graphs)
    ahead = launched(execution, 1.0)
    kept = []
    for value in range(2, 30):
        behind = launched(execution, float(value), rows=(1, 2, 4)[value % 3])
        kept.append(execution.collect(ahead).outputs)
        ahead = behind
    kept.append(execution.collect(ahead).outputs)
    assert [outputs["double"][0].tolist() for outputs in kept] == [[2.0 * value] * 3 for value in range(1, 30)]
    assert all(outputs["positive"].all() and outputs["positive"].dtype == bool for outputs in kept)


def any_order_will_do_and_more_in_flight_than_slots(device: Device, graphs: bool) -> None:
    execution = execution_on(device, graphs=graphs)
    flying = [launched(execution, float(value)) for value in range(SLOTS + 3)]
    found = [execution.collect(one).outputs["double"][0, 0] for one in reversed(flying)]
    assert found == [2.0 * value for value in reversed(range(SLOTS + 3))]
    assert len(execution._free) == SLOTS


def a_larger_batch_than_ever_before_finds_room(device: Device, graphs: bool) -> None:
    execution = execution_on(device, graphs=graphs)
    small, large = launched(execution, 1.0), launched(execution, 2.0, rows=100)
    assert execution.collect(large).outputs["double"].tolist() == [[4.0] * 3] * 100
    assert execution.collect(small).outputs["double"].tolist() == [[2.0] * 3] * 2
    assert execution.collect(launched(execution, 3.0)).outputs["double"].tolist() == [[6.0] * 3] * 2


def the_device_says_how_long_it_copied_and_computed(device: Device, graphs: bool) -> None:
    execution = execution_on(device, graphs=graphs)
    collected = execution.collect(launched(execution, 1.0))
    assert collected.compute_ns > 0
    assert collected.copy_ns > 0
    assert collected.copy_back_ns > 0


def a_module_that_cannot_be_captured_is_still_computed(device: Device, graphs: bool) -> None:
    """Checks a module that waits for the device. `graphs`: other graphs were captured before in the same pool."""
    execution = execution_on(device, graphs=graphs)
    with looking_at_values(execution) as fails:
        with fails:
            execution.capture(request(0.0, 8), Bucket(8, 1), {})
        assert execution.collect(launched(execution, 4.0, rows=8)).outputs["double"][0, 0] == 8.0
    assert execution.collect(launched(execution, 5.0)).outputs["double"][0, 0] == 10.0
    execution.capture(request(0.0, 8), Bucket(8, 1), {})
    assert execution.collect(launched(execution, 6.0, rows=8)).outputs["double"][0, 0] == 12.0
    if isinstance(device, CudaDevice):
        assert torch.randn(4, device="cuda").isfinite().all(), "random numbers are not part of a capture any more"


def graphs_are_captured_again_after_all_were_dropped(device: Device, graphs: bool) -> None:
    """Checks a capture after all graphs were dropped. `graphs`: there were some."""
    execution = execution_on(device, graphs=graphs)
    execution.forget()
    execution.capture(request(0.0, 2), Bucket(2, 1), {})
    assert execution.collect(launched(execution, 3.0)).outputs["double"][0, 0] == 6.0


class Fails:
    """A replacement of `pytest.raises(RuntimeError)` for runs without pytest."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        assert kind is not None, "nothing was raised"
        return issubclass(kind, RuntimeError)


@contextmanager
def looking_at_values(execution: PipelinedExecution) -> Iterator[Fails]:
    """Makes the module wait for the device, which is not allowed during a capture."""

    def compute(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not x.is_cuda and execution._device.is_capturing:  # type: ignore[attr-defined]
            raise RuntimeError("operation not permitted when stream is capturing")
        assert x.sum().item() is not None
        return double_and_sign(x)

    before, execution.compute = execution.compute, compute
    yield Fails()
    execution.compute = before


def a_whole_model_answers_as_on_the_cpu_however_it_is_computed(device: Device, graphs: bool) -> None:
    """Compares a whole model's answers with the CPU's. `graphs`: after tuning, which may choose graphs."""
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    spec = spec_of(resources=Resources(gpus=1 if isinstance(device, CudaDevice) else 0))
    reference = load_module(spec_of(), module)
    part = reference.sample(5, 1)
    expected = reference.forward(reference.collate([part], Bucket(5, 1)))["y"]
    model = load_module(spec, module, None if isinstance(device, CudaDevice) else device)
    assert model.asynchronous
    if graphs:
        model.tune([Bucket(rows, 1) for rows in (1, 2, 4, 8)])
    np.testing.assert_allclose(model.forward(model.collate([part], Bucket(5, 1)))["y"], expected, atol=1e-5)
    assert_batched_equals_unbatched(model)
    model.close()
    with Fails():
        model.forward(model.collate([part], Bucket(5, 1)))


def spec_of(resources: Resources | None = None) -> ModelSpec:
    return ModelSpec(
        name="mlp",
        factory="tests:mlp",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 2)),),
        resources=resources or Resources(),
    )


STORIES: tuple[Callable[[Device, bool], None], ...] = (
    two_batches_in_flight_never_touch_each_other,
    any_order_will_do_and_more_in_flight_than_slots,
    a_larger_batch_than_ever_before_finds_room,
    the_device_says_how_long_it_copied_and_computed,
    a_module_that_cannot_be_captured_is_still_computed,
    graphs_are_captured_again_after_all_were_dropped,
    a_whole_model_answers_as_on_the_cpu_however_it_is_computed,
)


def main() -> int:
    def run(story: Callable[[Device, bool], None], graphs: bool) -> None:
        story(CudaDevice(torch.device("cuda", 0)), graphs)

    return tell(
        (f"{story.__name__}{' (graphs)' if graphs else ''}", partial(run, story, graphs))
        for story in STORIES
        for graphs in (False, True)
    )


if __name__ == "__main__":
    sys.exit(main())
