"""Tests the logs as formatted for people."""

import json
from pathlib import Path

import pytest

from serving.telemetry.log_files import LogFiles


def line(at: str, text: str, **more: str) -> str:
    record = {"asctime": at, "levelname": "INFO", "message": text, "deployment": "scorer_ModelReplica"}
    return json.dumps(record | {"replica": "abc"} | more) + "\n"


def test_the_lines_of_several_replicas_are_merged_by_time_and_shown_once(tmp_path: Path) -> None:
    one, other = tmp_path / "replica_scorer_ModelReplica_abc.log", tmp_path / "replica_scorer_ModelReplica_def.log"
    one.write_text(line("12:00:01", "first") + line("12:00:03", "third"))
    other.write_text(line("12:00:02", "second", replica="def"))
    logs = LogFiles(tmp_path)
    assert [(found.who, found.text) for found in logs.new_lines()] == [
        ("scorer abc", "first"),
        ("scorer def", "second"),
        ("scorer abc", "third"),
    ]
    assert logs.new_lines() == []
    with one.open("a") as file:
        file.write(line("12:00:04", "fourth") + '{"asctime": "half a')
    assert [found.text for found in logs.new_lines()] == ["fourth"]


def test_a_traceback_is_shown_and_a_line_that_is_no_json_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "replica_front_Front_x.log").write_text(
        "something printed\n" + line("12:00:01", "failed", exc_text="Traceback: why", levelname="ERROR")
    )
    plain, failed = LogFiles(tmp_path).new_lines()
    assert (plain.text, plain.who) == ("something printed", "front_Front_x")
    assert (failed.level, failed.text) == ("ERROR", "failed\n  Traceback: why")


@pytest.mark.parametrize(
    "bad", ["\x1b[2J", "\x9b1m", "\n2026-01-01 all is well", "\r", "\u2028", "\u202e", "\x07", "\ud800"]
)
def test_text_from_clients_cannot_control_the_terminal_or_forge_lines(tmp_path: Path, bad: str) -> None:
    raw = line("12:00:01", f"done; request {bad}id", exc_text=f"ValueError: {bad}x")
    (tmp_path / "replica_a.log").write_text(raw + f"printed {bad.strip()}x\n".encode(errors="replace").decode())
    lines = LogFiles(tmp_path).new_lines()
    shown = next(one for one in lines if one.at)
    assert shown.raw == raw.rstrip("\n")
    first, *traceback = shown.text.split("\n")
    assert first.startswith("done; request \\")
    assert first.endswith("id")
    assert all(one.startswith("  ") for one in traceback)
    for one in lines:
        assert all(part.isprintable() for part in one.text.split("\n"))


def test_a_file_that_was_replaced_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "replica_a.log"
    path.write_text(line("1", "a long line before the file was rotated away") * 3)
    logs = LogFiles(tmp_path)
    assert len(logs.new_lines()) == 3
    path.write_text(line("2", "new"))
    assert [found.text for found in logs.new_lines()] == ["new"]
