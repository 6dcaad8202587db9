"""Reading scenarios, traces, objectives and results as different editors write them; other encodings are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest import objective
from loadtest.arrivals import schedule
from loadtest.loading import load
from loadtest.result import BadResult, read_result, write_result
from loadtest.shot import Shot, read_shots, write_shots
from loadtest.spec import BadSpec
from loadtest.sweep import read_any
from tests.loadtest.results import result, run, shot

Rewrite = Callable[[Path], Path]

TOML = '# größer\nmodel = "text-embedder"\nrate = 50\n'
RECORDED = {"at_s": 1.5, "model": "m", "tenant": "a\u2028b", "priority": 0, "deadline_ms": None}
RECORDED |= {"inputs": {"x": {"datatype": "FP32", "shape": [1, 4]}}}
LINE = json.dumps(RECORDED, ensure_ascii=False) + "\n"


@pytest.fixture(params=["plain", "with a byte order mark", "on Windows"])
def rewritten(request: pytest.FixtureRequest) -> Rewrite:
    """Rewrites a file as another editor would."""

    def rewrite(path: Path) -> Path:
        text = path.read_bytes()
        if request.param != "plain":
            text = b"\xef\xbb\xbf" + text
        if request.param == "on Windows":
            text = text.replace(b"\n", b"\r\n")
        path.write_bytes(text)
        return path

    return rewrite


def test_scenarios_are_read(rewritten: Rewrite, tmp_path: Path) -> None:
    for name, text in (("shop.toml", TOML), ("asked.jsonl", LINE + "\n" + LINE)):
        (tmp_path / name).write_bytes(text.encode())
    assert load(rewritten(tmp_path / "shop.toml")).rate == 50
    (task,) = load(rewritten(tmp_path / "asked.jsonl")).tasks()
    assert task.model == "m"


def test_traces_objectives_and_results_are_read(rewritten: Rewrite, tmp_path: Path) -> None:
    (tmp_path / "trace").write_bytes(b'{"at_s": 100.0}\n\n102\n')
    assert schedule(f"replay({rewritten(tmp_path / 'trace')})", rate=0, seconds=9) == (0, 2_000_000_000)
    (tmp_path / "objective.toml").write_bytes(b"p99_ms = 50\n")
    assert [limit.bound for limit in objective.read(rewritten(tmp_path / "objective.toml"))] == [50]
    whole = result(run([shot(0, 20)]))
    write_result(tmp_path / "result.json", whole)
    assert read_result(rewritten(tmp_path / "result.json")).load == whole.load
    assert read_any(tmp_path / "result.json") == read_result(tmp_path / "result.json")
    write_shots(tmp_path / "shots", [Shot(5), Shot(12)])
    assert read_shots(rewritten(tmp_path / "shots")) == [Shot(5), Shot(12)]


@pytest.mark.parametrize("content", [TOML.encode("latin-1"), TOML.encode("utf-16")], ids=["Latin-1", "UTF-16"])
def test_a_file_that_is_not_utf8_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    for name in ("a.toml", "a.jsonl"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadSpec, match=rf"{name}: 'utf-8' codec can't decode"):
            load(tmp_path / name)
    with pytest.raises(BadSpec, match=r"objective: .*a\.toml: 'utf-8' codec can't decode"):
        objective.read(tmp_path / "a.toml")
    with pytest.raises(BadSpec, match="'utf-8' codec can't decode"):
        schedule(f"replay({tmp_path / 'a.toml'})", rate=1, seconds=1)
    with pytest.raises(BadResult, match=r"a\.toml is not a result"):
        read_result(tmp_path / "a.toml")
