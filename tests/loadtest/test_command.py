"""The command line, with real processes against a scripted server."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.__main__ import main
from loadtest.result import BadResult, read_result
from loadtest.shot import read_shots
from tests.loadtest.scripted import Reply, answer, scripted

METADATA = json.dumps({"name": "noop", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]}).encode()


def command_line(reply: Callable[[int, str], Reply], *words: str) -> int:
    """Runs the command in a thread, because it blocks and the server's event loop runs in this one."""

    async def run() -> int:
        async with scripted(reply) as server:
            return await asyncio.to_thread(main, [word.replace("URL", server.url) for word in words])

    return asyncio.run(run())


def helpful(_: int, head: str) -> Reply:
    if head.startswith("GET"):
        return answer(404) if "/stats" in head else answer(body=METADATA)
    return answer(body=b"y")


def test_a_run_reads_the_model_shoots_from_two_processes_and_writes_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, shots = tmp_path / "result.json", tmp_path / "shots.jsonl"
    code = command_line(
        helpful, "run", "URL", "--rate", "100", "--seconds", "0.1", "--arrivals", "constant",
        "--processes", "2", "--json", str(result), "--shots", str(shots),
    )  # fmt: skip
    assert code == 0
    assert "planned 10, sent 10, not sent 0, answered 10" in capsys.readouterr().out
    (run,) = read_result(result).runs
    assert run.summary.by_status == {"200": 10}
    assert [shot.planned_ns for shot in read_shots(shots)] == [index * 10_000_000 for index in range(10)]


def test_a_run_fails_where_a_shot_was_not_answered() -> None:
    code = command_line(
        lambda index, head: helpful(index, head) if head.startswith("GET") else answer(503),
        "run", "URL", "--rate", "100", "--seconds", "0.05",
    )  # fmt: skip
    assert code == 1


def test_a_closed_loop_runs_as_many_users_as_asked() -> None:
    assert command_line(helpful, "run", "URL", "--users", "3", "--think", "0.01", "--seconds", "0.1") == 0


def test_an_unknown_model_is_reported_with_the_servers_error(capsys: pytest.CaptureFixture[str]) -> None:
    code = command_line(
        lambda *_: answer(404, b'{"error":"no such model"}'), "run", "URL", "--rate", "1", "--seconds", "1"
    )
    assert code == 2
    assert "answers 404: no such model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "0"], "rate: must be positive"),
        (["--seconds", "1"], "rate: must be positive, got 0; for a closed loop, give users"),
        (["--rate", "5", "--arrivals", "often"], "arrivals: no such kind 'often'"),
        (["--rate", "5", "--scenario", "/nowhere.toml"], "there is no file /nowhere.toml"),
        (["--rate", "5", "--scenario", "/nowhere.toml", "--rows", "3"], "--rows: the scenario sets this"),
        (["--users", "5", "--think", "long"], "think: no such kind 'long'"),
        (["--rate", "5", "--seconds", "0"], "seconds: must be positive"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_anything_is_sent(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "http://127.0.0.1:1/v2/models/m", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_result_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(BadResult, match=r"other.json is not a result"):
        read_result(tmp_path / "other.json")
