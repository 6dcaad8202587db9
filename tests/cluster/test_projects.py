"""Tests a user's project on a real Ray: its files may have any names, and errors contain no secrets."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http
from ray import serve

from serving.cluster.probes import hears
from serving.config import load_settings
from serving.operate.launch import Cluster, StartFailed
from tests.cluster.conftest import PORT, settings_file
from tests.patience import eventually

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SECRET = "hunter2-and-more"
SCORER = """
from pathlib import Path
import torch
from models.base import InvalidInput
from layers import double

class Scorer(torch.nn.Module):
    def __init__(self, shift, token=""):
        super().__init__()
        self.shift = float(Path(shift).read_text())
        if token:
            raise ValueError(f"no access with {token}")
    def forward(self, x):
        return double(x) + self.shift
"""
VECTOR = {"datatype": "FP32", "shape": [-1, 2]}
MODEL: dict[str, Any] = {
    "factory": "models:Scorer",
    "inputs": [{"name": "x", **VECTOR}],
    "outputs": [{"name": "y", **VECTOR}],
    "resources": {"cpus": 0.1},
}


def indexed() -> dict[str, Any]:
    """Returns the repository index, by model."""
    ask = urllib.request.Request(f"http://127.0.0.1:{PORT}/v2/repository/index", data=b"{}", method="POST")
    with urllib.request.urlopen(ask, timeout=10) as answer:
        return {model["name"]: model for model in json.load(answer)}


def test_a_project_whose_files_are_named_like_others_is_served_and_secrets_stay_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models.py").write_text(SCORER)
    (tmp_path / "layers.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "shift.txt").write_text("100")
    for name in ("json", "queue", "statistics", "types", "serving"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a server that imports this is broken')\n")
    good = MODEL | {"name": "good", "options": {"shift": "shift.txt"}}
    bad = MODEL | {"name": "bad", "options": {"shift": "shift.txt", "token": SECRET}}
    path = settings_file(tmp_path, good, bad, grpc_port=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    cluster = Cluster(load_settings(path), path, said.append)
    try:
        cluster.start()
        with pytest.raises(StartFailed) as failed:
            cluster.wait_until_ready()
        assert str(failed.value) == (
            "bad did not start: ValueError: no access with <options.token> (models.py, line 12)"
        )
        eventually(lambda: hears(f"http://127.0.0.1:{PORT}", "/v2/models/good", 1), bool)
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{PORT}") as client:
            x = tritonclient.http.InferInput("x", [1, 2], "FP32").set_data_from_numpy(np.ones((1, 2), np.float32))
            assert client.infer("good", [x]).as_numpy("y").tolist() == [[102.0, 102.0]]
        models = eventually(indexed, lambda models: models["bad"]["reason"])
        assert SECRET not in json.dumps(models)
        assert SECRET not in str(serve.status()), "what the index is made of"
        assert os.environ["PYTHONPATH"] == ""
    finally:
        cluster.stop()
    assert SECRET not in "\n".join(said)
