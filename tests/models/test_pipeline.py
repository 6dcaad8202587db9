"""Batches through an asynchronous device: the same stories of the scripted one, in many orders, and of CUDA."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.pytorch.cuda import CudaDevice, Device
from models.pytorch.scripted import ScriptedDevice
from tests.models.pipeline_stories import STORIES

SEEDS = range(8)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
@pytest.mark.parametrize("graphs", [False, True], ids=["eager", "graphs"])
@pytest.mark.parametrize("seed", [*SEEDS, pytest.param("cuda", marks=pytest.mark.gpu)])
def test_pipeline(seed: Any, graphs: bool, story: Callable[[Device, bool], None]) -> None:
    story(CudaDevice(torch.device("cuda", 0)) if seed == "cuda" else ScriptedDevice(seed=seed), graphs)
