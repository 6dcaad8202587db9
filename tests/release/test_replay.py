"""Tests that the latest recorded requests of a model are found in the files of several replicas."""

import asyncio
import json
from pathlib import Path

import numpy as np

from serving.release.replay import recorded
from serving.telemetry.recording import Recording
from tests.telemetry.test_recording import written


def line(at_s: float, model: str = "ranker", **inputs: object) -> str:
    return json.dumps({"at_s": at_s, "model": model, "inputs": inputs}) + "\n"


def test_the_latest_of_all_replicas_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "ranker_1_0.jsonl").write_text(line(1, a=1) + line(4, a=4))
    (tmp_path / "ranker_2_0.jsonl").write_text(line(2, a=2) + line(3, a=3))
    assert recorded(tmp_path, "ranker", 3) == [{"a": 2}, {"a": 3}, {"a": 4}]
    assert recorded(tmp_path, "ranker", 0) == []


def test_lines_that_are_cut_off_and_those_of_other_models_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "ranker_1_0.jsonl").write_text(line(1, "ranker_1") + '{"at_s": 2, "mod\n[1]\n' + line(3, a=3) + "{")
    assert recorded(tmp_path, "ranker", 9) == [{"a": 3}]
    assert recorded(tmp_path / "nowhere", "ranker", 9) == []


def test_what_a_replica_records_is_read(tmp_path: Path) -> None:
    recording = Recording(tmp_path, model="ranker", datatypes={"x": "FP32"}, most_bytes=1 << 20)

    async def story() -> None:
        recording.note({"x": np.zeros((3, 2), np.float32)}, "acme", 0, None)
        await written(recording)

    asyncio.run(story())
    assert recorded(tmp_path, "ranker", 9) == [{"x": {"datatype": "FP32", "shape": [3, 2]}}]
