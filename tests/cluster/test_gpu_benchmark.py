"""Tests the GPU benchmark's second mode: the same engine in a process of a Ray that it starts and ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.tables import ROOT

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


def test_under_ray_the_same_model_is_saturated_once_more_and_the_table_says_what_ray_takes(tmp_path: Path) -> None:
    words = ["--ray", "--device", "cpu", "--models", "mlp", "--sections", "saturated", "--rows", "4"]
    words += ["--seconds", "0.2", "--minutes", "3", "--output", str(tmp_path / "found.json")]
    command = [sys.executable, "-m", "benchmarks.gpu", *words]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    sections = json.loads((tmp_path / "found.json").read_text())["models"]["mlp"]
    ratio = sections["ray"]["engine_per_s"] / sections["rates"]["engine_per_s"]
    assert sections["ray"]["ratio"] == pytest.approx(ratio)
    head, line = (text.split() for text in ran.stdout.splitlines() if text.startswith(("model ", "mlp  ")))
    assert dict(zip(head, line, strict=True))["ray"] == f"{ratio:.2f}"
