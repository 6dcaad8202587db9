"""Tests folders of MLflow: their signatures, the flavours that are refused, and what is imported of the others."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.config import SettingsError
from serving.operate.registry.mlflow import imported, pickled, signature_of
from serving.registry.artifacts import BadArtifact
from serving.registry.inspection import UnsafeFile

COLUMNS = [{"name": "age", "type": "long"}, {"name": "name", "type": "string"}]
TENSOR = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}]
ONNX = {"onnx": {"data": "model.onnx", "onnx_version": "1.17.0"}, "python_function": {"loader_module": "mlflow.onnx"}}
SETTINGS = "factory: net:Net\noptions: {path: ./model.onnx}\n"


def saved(folder: Path, flavours: dict[str, Any], **facts: Any) -> Path:
    """Writes a folder as MLflow does, and returns it."""
    folder.mkdir()
    signature = {"inputs": json.dumps(TENSOR), "outputs": json.dumps(TENSOR)}
    told = {"flavors": flavours, "signature": signature, "run_id": "r1", "model_uuid": "u1", **facts}
    (folder / "MLmodel").write_text(yaml.safe_dump(told))
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    return folder


def test_a_model_without_pickles_is_imported_with_its_signature_and_its_origin(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", ONNX)
    settings = tmp_path / "model.yaml"
    settings.write_text(SETTINGS)
    made = imported(folder, {"metrics": {"auc": 0.9}}, settings).manifest
    assert made.model["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    assert made.model["outputs"] == [{"name": "output", "datatype": "FP32", "shape": [-1, 4]}]
    assert made.model["factory"] == "net:Net"
    assert sorted(made.files) == ["MLmodel", "model.onnx"]
    assert made.source == {"mlflow": {"run_id": "r1", "model_uuid": "u1"}}
    assert made.metrics == {"auc": 0.9}


def test_without_settings_it_is_told_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadArtifact, match="name it with --settings"):
        imported(saved(tmp_path / "model", ONNX), {}, None)


REFUSED: dict[str, dict[str, Any]] = {
    "the flavour sklearn is a pickle unless it is saved as skops": {"sklearn": {"serialization_format": "cloudpickle"}},
    "the flavour pytorch is a pickle unless it is saved as pt2": {"pytorch": {"model_data": "data"}},
    "the flavour statsmodels is a pickle": {"statsmodels": {}},
    "holds a pickled Python object": {"python_function": {"python_model": "python_model.pkl"}},
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_flavour_that_is_a_pickle_is_refused(why: str, tmp_path: Path) -> None:
    settings = tmp_path / "model.yaml"
    settings.write_text(SETTINGS)
    with pytest.raises(BadArtifact, match=why):
        imported(saved(tmp_path / "model", REFUSED[why]), {}, settings)


def test_other_flavours_are_not() -> None:
    assert pickled(ONNX) is None
    assert pickled({"sklearn": {"serialization_format": "skops"}}) is None
    assert pickled({"pytorch": {"serialization_format": "pt2"}}) is None


def test_a_pickle_is_refused_whatever_the_flavour_says(tmp_path: Path) -> None:
    folder, settings = saved(tmp_path / "model", ONNX), tmp_path / "model.yaml"
    settings.write_text(SETTINGS)
    (folder / "python_env.pkl").write_bytes(b"")
    with pytest.raises(UnsafeFile):
        imported(folder, {}, settings)


def test_columns_are_tensors_of_one_value_per_row() -> None:
    signature = signature_of({"signature": {"inputs": json.dumps(COLUMNS), "outputs": json.dumps(TENSOR)}})
    assert signature is not None
    assert signature.inputs == [
        {"name": "age", "datatype": "INT64", "shape": [-1, 1]},
        {"name": "name", "datatype": "BYTES", "shape": [-1, 1]},
    ]
    assert signature_of({}) is None
    assert signature_of({"signature": {"inputs": "[]", "outputs": ""}}) is None


@pytest.mark.parametrize(
    "inputs",
    [
        "{",
        "[1]",
        '[{"type": "datetime"}]',
        '[{"type": "tensor"}]',
        '[{"type": "tensor", "tensor-spec": {"dtype": "complex64", "shape": [-1]}}]',
        '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": ["x"]}}]',
    ],
)
def test_a_signature_that_cannot_be_read_is_told(inputs: str) -> None:
    with pytest.raises(BadArtifact, match="the signature's inputs cannot be read"):
        signature_of({"signature": {"inputs": inputs, "outputs": json.dumps(TENSOR)}})


def test_a_file_that_is_no_mlmodel_is_told(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("[1]")
    with pytest.raises(BadArtifact, match="names no flavors"):
        imported(tmp_path, {}, None)
    (tmp_path / "MLmodel").write_text("a: [")
    with pytest.raises(SettingsError):
        imported(tmp_path, {}, None)
