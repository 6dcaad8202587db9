"""The GPU benchmark where there is no GPU: it runs, with nothing but torch and numpy, and says that it is no GPU's."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.gpu import arrivals
from benchmarks.gpu.bare import Copies
from benchmarks.gpu.correctness import Differences
from benchmarks.gpu.fixed import Configuration, FixedBatcher, grid
from benchmarks.gpu.offline import batches_of
from benchmarks.gpu.report import Results, table
from models.base import Prepared
from serving.core.batch import Batch
from serving.core.batcher import Batcher
from serving.core.latency import LatencyModel
from serving.core.request import Request
from serving.core.sizes import Sizes
from tests.test_tidy import ROOT, THIRD_PARTY

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


def test_a_made_up_gpu_shows_the_hosts_part_and_says_that_it_is_none(tmp_path: Path) -> None:
    words = ["--emulate", "--seconds", "0.04", "--output", str(tmp_path / "found.json"), "--models", "mlp"]
    code = WITHOUT.format(absent=ABSENT, words=words)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("No number here is a GPU's.")
    sections = json.loads((tmp_path / "found.json").read_text())["models"]["mlp"]
    assert sections["load"]["facts"]["execution"] == "CUDA graphs"
    assert sections["rates"]["engine_per_s"] > 0
    assert len(sections["goodput"]) == 3
    assert "correct" not in sections


def test_arrivals_are_told_when_they_are_due_by_a_clock_that_both_share() -> None:
    planned = np.array([1_000_000, 2_000_000, 60_000_000], np.int64)
    began_after_ns = perf_counter_ns()
    ran = subprocess.run([sys.executable, arrivals.__file__], input=planned.tobytes(), capture_output=True, timeout=60)
    ended_ns = perf_counter_ns()
    began_ns, *due = np.frombuffer(ran.stdout, np.int64).tolist()
    assert began_after_ns < began_ns < began_ns + 60_000_000 < ended_ns
    assert due[-1] == 3
    assert due == sorted(set(due))


def test_company_may_change_an_answer_by_twice_the_rounding_and_no_more() -> None:
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


def test_a_fixed_batch_leaves_when_it_is_full_or_its_oldest_has_waited_and_drops_whom_it_is_too_late_for() -> None:
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
