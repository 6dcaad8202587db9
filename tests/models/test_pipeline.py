"""Pipelining batches through an asynchronous device: the tests of `pipeline_stories` on the scripted device, in many
orders, and on CUDA."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.pytorch.cuda import CudaDevice, Device
from models.pytorch.scripted import ScriptedDevice
from tests.models.pipeline_stories import STORIES, execution_on, launched

SEEDS = range(8)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("seed", [*SEEDS, pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pipeline(seed: Any, graphs: bool, story: Callable[[Device, bool], None]) -> None:
    story(CudaDevice(torch.device("cuda", 0)) if seed == "cuda" else ScriptedDevice(seed=seed), graphs)


@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
def test_a_batch_is_one_copy_in_and_one_out_into_memory_that_is_there_and_waits_for_no_stream(graphs: bool) -> None:
    """Copies two outputs of different types back in one copy; two batches are always in flight."""
    device = ScriptedDevice()
    execution = execution_on(device, graphs=graphs)
    for first in (launched(execution, 0.0), launched(execution, 0.0)):  # allocates the slots' memory
        execution.collect(first)
    before, free = device.counts.copy(), device.memory()
    ahead = launched(execution, 1.0)
    for _ in range(9):
        behind = launched(execution, 2.0)
        execution.collect(ahead)
        ahead = behind
    execution.collect(ahead)
    device.counts.subtract(before)
    assert device.counts["enqueue copy"] == device.counts["copy"] == 2 * 10
    assert device.counts["replay" if graphs else "run"] == 10
    assert (device.counts["synchronize"], device.counts["settle"], device.counts["capture"]) == (0, 0, 0)
    assert device.memory() == free
