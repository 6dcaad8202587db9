"""The choice of the device and of the number of threads."""

import asyncio
import ctypes
import gc
import logging
import math
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import mlp
from models.base import Tensors
from models.loading import load_models
from models.pytorch.device import DoesNotFit, check_room, choose_device, thread_count, weights_bytes
from models.pytorch.execution import DirectExecution
from models.pytorch.generating import TorchGenerating
from models.reference import repeat_spec
from models.spec import Resources


def test_a_model_that_asks_for_no_gpu_stays_on_the_cpu() -> None:
    assert str(choose_device(Resources(gpus=0), cuda_devices=1)) == "cpu"


def test_a_share_of_a_gpu_is_the_first_gpu_the_process_sees() -> None:
    assert str(choose_device(Resources(gpus=0.25), cuda_devices=1)) == "cuda:0"


def test_each_lane_has_a_gpu_of_its_own_and_none_is_made_up() -> None:
    assert [str(choose_device(Resources(gpus=2), lane, cuda_devices=2)) for lane in (0, 1)] == ["cuda:0", "cuda:1"]
    with pytest.raises(DoesNotFit, match=r"asked for 2 GPUs, but torch .* sees 1"):
        choose_device(Resources(gpus=2), 1, cuda_devices=1)


def test_gpus_are_numbered_as_by_the_driver_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    choose_device(Resources(gpus=1), cuda_devices=1)
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    choose_device(Resources(gpus=1), cuda_devices=1)
    assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_weights_that_do_not_fit_are_refused_before_they_are_loaded_with_what_they_need_and_what_is_free() -> None:
    check_room("m", 40, free=40, total=80, share=0.5, device="cuda:0")
    with pytest.raises(DoesNotFit, match=r"take 41,000 bytes, and 40,000 of 80,000 are free on cuda:0"):
        check_room("m", 41_000, free=40_000, total=80_000, share=1.0, device="cuda:0")
    with pytest.raises(DoesNotFit, match=r"take 41 bytes, and resources.gpus: 0.5 grants it 40 of the 80"):
        check_room("m", 41, free=80, total=80, share=0.5, device="cuda:0")


def test_weights_that_layers_share_count_once() -> None:
    first, second = torch.nn.Linear(8, 8, bias=False), torch.nn.Linear(8, 8, bias=False)
    assert weights_bytes(torch.nn.Sequential(first, second)) == 2 * 8 * 8 * 4
    second.weight = first.weight
    assert weights_bytes(torch.nn.Sequential(first, second)) == 8 * 8 * 4


@pytest.mark.gpu
def test_an_unloaded_model_gives_its_memory_back() -> None:
    wide = replace(mlp.SPEC.inputs[0], shape=(-1, 8192))
    spec = replace(mlp.SPEC, inputs=(wide,), options={"width": 8192}, resources=Resources(gpus=1))

    def load_and_unload() -> tuple[int, int]:
        """Returns the free memory of the GPU while the model is loaded, and after it was closed."""
        (model,) = load_models(spec)
        loaded, _ = torch.cuda.mem_get_info()
        model.close()
        del model
        gc.collect()
        torch.cuda.empty_cache()
        return loaded, torch.cuda.mem_get_info()[0]

    _, before = load_and_unload()  # libraries keep some memory after their first use
    loaded, after = load_and_unload()
    weights = 6 * 8192 * 8192 * 4
    assert before - loaded > 0.9 * weights
    assert before - after < 0.1 * weights


def test_a_missing_gpu_is_logged_as_a_warning_and_the_cpu_serves(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert str(choose_device(Resources(gpus=1), cuda_devices=0)) == "cpu"
    assert "asked for 1 GPU(s)" in caplog.text
    assert "serving on the CPU instead" in caplog.text


@pytest.mark.parametrize(
    ("asked", "usable", "threads"),
    [(1.0, 16.0, 1), (8.0, 2.0, 2), (2.5, 16.0, 2), (0.0, 4.0, 1), (4.0, 0.5, 1), (3.0, math.inf, 3)],
)
def test_threads_are_as_many_as_asked_for_and_at_most_the_usable_cpus(
    asked: float, usable: float, threads: int
) -> None:
    assert thread_count(asked, usable) == threads


def threads_of_blas() -> int:
    """Returns the number of threads that the OpenMP of torch would use for a product in the calling thread.

    Other packages, whose tests may have run in this process, bring an OpenMP of their own."""
    with open("/proc/self/maps") as maps:
        loaded = {Path(line.split()[-1]) for line in maps if "libgomp" in line or "libiomp" in line}
    (path,) = (path for path in loaded if path.is_relative_to(Path(torch.__file__).parent))
    threads: int = ctypes.CDLL(str(path)).omp_get_max_threads()
    return threads


class TellsThreads(torch.nn.Module):
    """Answers with `threads_of_blas`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + threads_of_blas()

    def generate(self, inputs: Tensors) -> Iterator[Tensors]:
        yield {"out": np.array([threads_of_blas()])}


class AwaitsAndTellsThreads(torch.nn.Module):
    """Answers with `threads_of_blas`, in an async generator."""

    async def generate(self, inputs: Tensors) -> AsyncIterator[Tensors]:
        yield {"out": np.array([threads_of_blas()])}


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Torch has three threads, afterwards as many as before. A new thread would have as many as there are cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_the_thread_that_computes_has_the_models_number_of_threads_from_its_first_batch_on() -> None:
    execution = DirectExecution(TellsThreads(), ["y"])
    with ThreadPoolExecutor(1) as lane:
        outputs = lane.submit(execution.launch, {"x": np.zeros((1, 1), np.float32)}).result()
    assert outputs["y"] == 3


@pytest.mark.usefixtures("three_threads")
def test_a_thread_that_generates_has_the_models_number_of_threads_from_its_first_step_on() -> None:
    spec = repeat_spec()
    in_turn, awaited = (TorchGenerating(spec, module, None) for module in (TellsThreads(), AwaitsAndTellsThreads()))
    with ThreadPoolExecutor(1) as lane:
        assert lane.submit(next, in_turn.generate({})).result() == {"out": 3}
    with ThreadPoolExecutor(1) as lane:
        assert lane.submit(lambda: asyncio.run(first(awaited.generate({})))).result() == {"out": 3}


async def first(answers: AsyncIterator[Tensors]) -> Tensors:
    return await anext(answers)
