"""Tests that a model's fingerprint changes with what changes its answers, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.fingerprint import FINGERPRINT_BYTES, fingerprint
from models.spec import Limits, ModelSpec, TensorSpec

X = TensorSpec(name="x", datatype="FP32", shape=(-1, 2))
Y = TensorSpec(name="y", datatype="FP32", shape=(-1, 1))


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "of_fingerprints.py").write_text("def net(**options): ...\n")
    (tmp_path / "weights.bin").write_bytes(b"one")
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "words.txt").write_text("a b")
    options = {"weights": "./weights.bin", "more": [{"vocabulary": "./vocabulary"}], "size": 3}
    return ModelSpec(
        name="net", factory="of_fingerprints:net", inputs=(X,), outputs=(Y,), options=options, folder=str(tmp_path)
    )


def test_it_is_the_same_for_the_same_model(spec: ModelSpec) -> None:
    assert fingerprint(spec) == fingerprint(replace(spec))
    assert len(fingerprint(spec)) == FINGERPRINT_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"name": "nets"},
        {"options": {"weights": "./weights.bin", "more": [{"vocabulary": "./vocabulary"}], "size": 4}},
        {"precision": "bf16"},
        {"outputs": (replace(Y, shape=(-1, 2)),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_declaration_changes_it(spec: ModelSpec, change: dict[str, object]) -> None:
    assert fingerprint(replace(spec, **change)) != fingerprint(spec)


@pytest.mark.parametrize("file", ["weights.bin", "vocabulary/words.txt", "of_fingerprints.py"])
def test_another_content_of_a_file_changes_it(spec: ModelSpec, file: str) -> None:
    before = fingerprint(spec)
    path = Path(spec.folder or "") / file
    path.write_text(path.read_text() + " ")
    assert fingerprint(spec) != before


def test_limits_replicas_and_labels_do_not_count(spec: ModelSpec) -> None:
    other = replace(spec, limits=Limits(max_queue_requests=7), replicas=4, labels={"y": ("a",)}, description="x")
    assert fingerprint(other) == fingerprint(spec)
