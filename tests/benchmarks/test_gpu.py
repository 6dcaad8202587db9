"""The GPU benchmark without a GPU: it needs only torch and numpy, and reports that its numbers are not of a GPU."""

import asyncio
import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import perf_counter, perf_counter_ns
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import arrivals
from benchmarks.gpu.bare import Copies
from benchmarks.gpu.correctness import Differences
from benchmarks.gpu.fixed import Configuration, FixedBatcher, grid
from benchmarks.gpu.models import MLP, Subject, subjects
from benchmarks.gpu.offline import batches_of
from benchmarks.gpu.report import Results, failures, table
from benchmarks.gpu.subject import Measured, Options, measure
from models.base import Model, Prepared
from models.loading import load_model
from models.pytorch.runner import load_module
from models.pytorch.scripted import ScriptedDevice
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.latency import LatencyModel
from serving.core.request import Request
from serving.core.sizes import Sizes
from serving.runtime.engine import Engine
from tests.tidy.tables import ROOT, THIRD_PARTY

MS = 1_000_000
ABSENT = sorted({*THIRD_PARTY, "uvloop", "matplotlib"} - {"torch", "numpy"})
WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys({absent}))  # importing these fails, as if they were not installed
sys.argv[1:] = {words}
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def test_it_runs_with_torch_and_numpy_alone_and_says_that_no_number_is_about_a_gpu(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--seconds", "0.04", "--rows", "4", "--output", str(tmp_path / "found.json")]
    words += ["--models", "encoder"]
    code = WITHOUT.format(absent=ABSENT, words=words)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("No number here is about a GPU.")
    sections = json.loads((tmp_path / "found.json").read_text())["models"]["encoder"]
    assert sections["correct"]["holds"]
    assert sections["rates"]["engine_per_s"] > 0
    assert len(sections["goodput"]) == 3
    assert "NO GPU" in (tmp_path / "found.svg").read_text()


def test_arrivals_are_reported_when_they_are_due_on_the_shared_clock() -> None:
    planned = np.array([1_000_000, 2_000_000, 60_000_000], np.int64)
    began_after_ns = perf_counter_ns()
    ran = subprocess.run([sys.executable, arrivals.__file__], input=planned.tobytes(), capture_output=True, timeout=60)
    ended_ns = perf_counter_ns()
    began_ns, *due = np.frombuffer(ran.stdout, np.int64).tolist()
    assert began_after_ns < began_ns < began_ns + 60_000_000 < ended_ns
    assert due[-1] == 3
    assert due == sorted(set(due))


def test_batching_may_change_an_answer_by_twice_the_rounding_and_no_more() -> None:
    assert Differences(batched=0.001, served=0.001, rounding=0.0, shuffled=1.4).holds(0.01)
    assert Differences(batched=0.1, served=0.1, rounding=0.05, shuffled=1.4).holds(0.01)
    assert not Differences(batched=0.02, served=0.001, rounding=0.005, shuffled=1.4).holds(0.01)
    assert not Differences(batched=0.001, served=0.02, rounding=0.005, shuffled=1.4).holds(0.01)
    assert not Differences(batched=0.001, served=0.001, rounding=0.0, shuffled=0.02).holds(0.01)


def test_copies_are_hidden_where_batches_take_no_longer_with_them() -> None:
    assert Copies(in_ms=1.0, out_ms=1.0, compute_ms=5.0, pipelined_ms=5.5).hidden_share == 0.75
    assert Copies(in_ms=1.0, out_ms=1.0, compute_ms=5.0, pipelined_ms=7.5).hidden_share == 0.0
    assert Copies(in_ms=0.01, out_ms=0.01, compute_ms=5.0, pipelined_ms=5.1).hidden_share is None


def test_every_request_rides_offline_and_only_with_those_of_its_length() -> None:
    parts = [Prepared({}, 1, None, length) for length in (5, 16, 17, 9, 30)]
    batches = batches_of(parts, 2, (16, 32))
    assert sorted((bucket.rows, bucket.length) for _, bucket in batches) == [(2, 16), (2, 16), (2, 32)]
    assert {id(part) for riders, _ in batches for part in riders} == {id(part) for part in parts}


def test_a_fixed_batch_starts_when_it_is_full_or_its_oldest_has_waited_and_expired_requests_are_dropped() -> None:
    batcher = fixed(max_rows=2, wait_ns=3 * MS)
    batcher.offer(request(1, arrived_ns=0))
    assert batcher.cut(0, MS).ask_again_ns == 3 * MS
    assert riders(batcher.cut(0, 3 * MS).batch) == [1]
    batcher = fixed(max_rows=2, wait_ns=3 * MS)
    for number in (1, 2, 3):
        batcher.offer(request(number, arrived_ns=0))
    batch = batcher.cut(0, MS).batch
    assert riders(batch) == [1, 2]
    assert batcher.cut(0, 20 * MS).batch is None  # one batch at a time
    assert batch is not None
    batcher.settle(batch, 20 * MS)
    assert [late.id for late in batcher.cut(0, 20 * MS).expired] == [3]


def test_the_grid_offers_no_size_that_takes_the_whole_budget() -> None:
    latency = LatencyModel()
    for rows in (1, 64):
        latency.observe(rows, 1, rows * MS)
    batcher = Batcher(latency, Sizes(largest_rows=64))
    sizes = {configuration.max_rows for configuration in grid(batcher, 10 * MS)}
    assert sizes == {1, 2, 4, 8}


def options(load: Callable[[Subject], Model], until: float = math.inf) -> Options:
    made = partial(subjects, small=True, largest_rows=4, gpus=0.0)
    return Options(
        seconds=0.04, compile_s=0.0, device=torch.device("cpu"), sections=("correct", "offline", "saturated"),
        subjects=made, load=load, until=until,
    )  # fmt: skip


def test_a_device_that_is_lost_in_one_section_leaves_what_was_found_before_and_the_table(tmp_path: Path) -> None:
    class Doomed(Results):
        def put(self, model: str, section: str, value: Any) -> None:
            super().put(model, section, value)
            device.lost = device.lost or section == "correct"

    device, results = ScriptedDevice(), Doomed(tmp_path / "found.json", {"title": "none"})
    wanted = options(lambda subject: load_module(subject.spec, MLP(128, 6), device))
    assert not asyncio.run(measure(wanted.subjects()["mlp"], wanted, results))
    found = json.loads(results.path.read_text())
    sections = found["models"]["mlp"]
    assert sections["correct"]["holds"]
    assert set(sections["failed"]) == {"offline", "saturated"}
    assert table(found).splitlines()[-1].endswith("FAILED")
    assert failures(found)[0] == "mlp: offline failed: CUDA error: an illegal memory access was encountered"


def test_a_model_that_cannot_be_loaded_or_runs_out_of_time_is_recorded_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    def load(subject: Subject) -> Model:
        if subject.name == "mlp":
            raise RuntimeError("no room")
        return load_model(subject.spec)

    results = Results(tmp_path / "found.json", {"title": "none"})
    for name, until in (("mlp", math.inf), ("encoder", math.inf), ("convnet", 0.0)):
        wanted = options(load, until)
        asyncio.run(measure(wanted.subjects()[name], wanted, results))
    assert failures(results.found) == ["mlp: model failed: no room", "convnet: model failed: out of time"]
    assert results.found["models"]["encoder"]["rates"]["engine_per_s"] > 0
    assert "mlp: not measured" in results.path.with_suffix(".svg").read_text()


def test_a_section_under_way_is_cut_short_when_time_is_up(tmp_path: Path) -> None:
    async def story() -> None:
        wanted = options(lambda subject: load_model(subject.spec))
        subject = wanted.subjects()["mlp"]
        async with Engine([load_model(subject.spec)]) as engine:
            soon = dataclasses.replace(wanted, seconds=3600.0, until=perf_counter() + 0.05)
            one = Measured(subject, soon, Results(tmp_path / "found.json", {"title": "none"}), engine)
            with pytest.raises(TimeoutError, match="out of time"):
                await one.measured("saturated")

    asyncio.run(story())


def test_the_simulated_host_needs_no_torch_and_says_the_same_every_time() -> None:
    words = ["--models", "transformer", "--seconds", "0.05"]
    absent = [*ABSENT, "torch"]
    code = WITHOUT.format(absent=absent, words=words).replace('"benchmarks.gpu"', '"benchmarks.gpu.simulated"')
    first, again = (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    lines = [line for line in first.stdout.splitlines() if line.startswith("transformer")]
    assert [float(line.split()[2]) for line in lines] == [0.6, 0.9, 1.2]
    assert lines == [line for line in again.stdout.splitlines() if line.startswith("transformer")]


def test_what_was_measured_is_on_disk_after_each_section(tmp_path: Path) -> None:
    results = Results(tmp_path / "found.json", {"title": "a GPU"})
    results.put("mlp", "rates", {"engine_per_s": 50.0, "ones_per_s": 10.0, "busy_share": 0.5})
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert found["models"]["mlp"]["rates"]["engine_per_s"] == 50.0
    head, line = table(found).splitlines()
    assert dict(zip(head.split(), line.split(), strict=True))["/ones"] == "5.00"


def fixed(*, max_rows: int, wait_ns: int) -> FixedBatcher:
    like = Batcher(LatencyModel(), Sizes(largest_rows=64))
    return FixedBatcher(like, Configuration(max_rows=max_rows, wait_ns=wait_ns, ahead=1))


def request(number: int, *, arrived_ns: int) -> Request:
    deadline_ns = arrived_ns + 10 * MS
    return Request(
        id=number, tenant="", rows=1, length=1, group=None, arrived_ns=arrived_ns, deadline_ns=deadline_ns,
        expires_ns=deadline_ns, rank_ns=deadline_ns, payload=SimpleNamespace(),
    )  # fmt: skip


def riders(batch: Batch | None) -> Iterable[int]:
    assert batch is not None
    return [request.id for request in batch.requests]
