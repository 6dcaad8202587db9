"""Tests docs/clients.md: serves its models, runs every example and compares its output with the comments in it.

The example that loads and unloads models needs Ray: tests/cluster/test_operations.py runs it.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from serving.api.shared_memory.regions import Regions
from serving.config import Settings
from tests.house import House, house

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```(python|sh|yaml)\n(.*?)```", GUIDE, re.DOTALL)
CODE = [code for language, code in BLOCKS if language == "python"]
NEEDS_RAY = [code for code in CODE if ".load_model(" in code]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    (settings,) = (code for language, code in BLOCKS if language == "yaml")
    specs = Settings.model_validate(yaml.safe_load(settings)).model_specs()
    with house(*specs, regions=Regions(tmp_path_factory.mktemp("regions"))) as running:
        yield running


def output_of(command: list[str], code: str, http: str, grpc: str) -> str:
    here = code.replace("localhost:8000", http).replace("localhost:8001", grpc)
    done = subprocess.run([*command, here], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def promised_by(code: str) -> list[str]:
    """Returns the lines in the comments behind each `print`. A # separates several lines of one `print`."""
    comments = re.findall(r"^ *print\(.*\)  # (.*)$", code, re.MULTILINE)
    return [line for comment in comments for line in comment.split(" # ")]


def check_example(code: str, http: str, grpc: str) -> None:
    assert promised_by(code)
    assert output_of([sys.executable, "-c"], code, http, grpc).splitlines() == promised_by(code)


@pytest.mark.parametrize(
    "code", [code for code in CODE if code not in NEEDS_RAY], ids=lambda code: str(CODE.index(code))
)
def test_an_example_prints_what_it_says(served: House, code: str) -> None:
    check_example(code, served.http, served.grpc)


def test_the_curl_lines_work(served: House) -> None:
    (lines,) = (code for language, code in BLOCKS if language == "sh")
    said = output_of(["bash", "-ec"], lines, served.http, served.grpc)
    assert said.count('"word":') == 4
    assert '"text":"hello"' in said


def test_every_test_the_guide_names_exists() -> None:
    named = re.findall(r"`(tests/\S+?\.py)(?:::(\w+))?`", GUIDE)
    assert len(named) > 10
    for path, test in named:
        assert f"def {test}" in (ROOT / path).read_text() if test else (ROOT / path).exists(), (path, test)
