"""Tests that a user's modules do not hide ours in the processes that Ray starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.operate.path import ROOT, claim_python_path


def places(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))


@pytest.mark.parametrize("file", ["models.py", "serving.py", "models/__init__.py", "loadtest/__init__.py"])
def test_folders_that_hide_our_packages_are_removed_from_the_path_and_returned(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hiding, harmless = tmp_path / "hiding", tmp_path / "harmless"
    for path in (hiding / file, harmless / "shop.py", harmless / "models" / "weights.pt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    places(monkeypatch, hiding, harmless, ROOT)
    assert claim_python_path(str(tmp_path)) == [str(hiding)]
    assert os.environ["PYTHONPATH"] == os.pathsep.join(map(str, (harmless, ROOT)))


def test_the_folder_of_the_settings_is_removed_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models.py").write_text("")
    places(monkeypatch, tmp_path)
    assert claim_python_path(str(tmp_path)) == []
    assert os.environ["PYTHONPATH"] == ""


def test_a_path_that_hides_nothing_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places(monkeypatch, tmp_path)
    assert claim_python_path(None) == []
    assert os.environ["PYTHONPATH"] == str(tmp_path)
    monkeypatch.delenv("PYTHONPATH")
    assert claim_python_path(None) == []
    assert "PYTHONPATH" not in os.environ


@pytest.mark.parametrize("file", ["models.py", "models/__init__.py"])
def test_the_command_finds_its_own_packages_whatever_the_path_holds(file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("raise RuntimeError('not this one')\n")
    settings = """\
models:
  - name: mine
    factory: shop:make
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 4]}]
"""
    (tmp_path / "shop.py").write_text("def make(): ...\n")
    (tmp_path / "my.yaml").write_text(settings)
    command = [sys.executable, "-m", "serving", "check-config", "my.yaml", "--import"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
