"""Which device, and how many threads."""

import logging
import math
from pathlib import Path

import pytest

from models.pytorch.device import choose_device, thread_count, usable_cpus
from models.spec import Resources


def test_a_model_that_asks_for_no_gpu_stays_on_the_cpu() -> None:
    assert str(choose_device(Resources(gpus=0), cuda_is_available=True)) == "cpu"


def test_a_share_of_a_gpu_is_the_first_gpu_the_process_sees() -> None:
    assert str(choose_device(Resources(gpus=0.25), cuda_is_available=True)) == "cuda:0"


def test_a_missing_gpu_is_loudly_said_and_the_cpu_serves(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert str(choose_device(Resources(gpus=1), cuda_is_available=False)) == "cpu"
    assert "asked for 1 GPU(s)" in caplog.text
    assert "serving on the CPU instead" in caplog.text


@pytest.mark.parametrize(
    ("asked", "usable", "threads"),
    [(1.0, 16.0, 1), (8.0, 2.0, 2), (2.5, 16.0, 2), (0.0, 4.0, 1), (4.0, 0.5, 1), (3.0, math.inf, 3)],
)
def test_threads_are_what_was_asked_within_what_there_is(asked: float, usable: float, threads: int) -> None:
    assert thread_count(asked, usable) == threads


def test_a_containers_quota_counts_in_either_generation_of_cgroups(tmp_path: Path) -> None:
    second, first, none = tmp_path / "v2", tmp_path / "v1", tmp_path / "none"
    second.mkdir()
    (second / "cpu.max").write_text("50000 100000\n")
    (first / "cpu").mkdir(parents=True)
    (first / "cpu" / "cpu.cfs_quota_us").write_text("25000\n")
    (first / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(second) == 0.5
    assert usable_cpus(first) == 0.25
    assert usable_cpus(none) >= 1


def test_no_quota_means_the_affinity(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(tmp_path) == usable_cpus(tmp_path / "nothing")
