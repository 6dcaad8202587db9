"""Tests the comparison of what was served with the history, and `headway features check`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.features.offline.served import BadLine, Known, Served, differences, served_in
from serving.features.offline.spool import Spool
from serving.features.rows import Row as PushedRow
from serving.features.views import Feature, FeatureView, Missing
from serving.testing.clock import ManualClock
from tests.features.offline_store import NOON, SECOND, Row, stored
from tests.features.test_offline_commands import SETTINGS

AT_MS = NOON // 1000
VIEW = FeatureView(
    name="stats",
    entity="user",
    key="user_id",
    features=(Feature(name="age", datatype="INT64", missing=Missing.DEFAULT, default=0),),
)
LINE: dict[str, Any] = {
    "tenant": "acme",
    "view": "stats",
    "id": "u1",
    "at": AT_MS,
    "values": {"age": 3},
    "reasons": {"age": "present"},
}
FEATURES = """\
features:
  entities: {user: {key: user_id}}
  views:
    stats: {entity: user, features: {age: {type: INT64, missing: default, default: 0}}}
"""
NAN = float("nan")


def likely(value: object, reason: str, known: Known, by_event: Known | None = None) -> list[str]:
    """Returns why the value that was served differs, in words; nothing if it does not."""
    (served,) = served_in([json.dumps(LINE | {"values": {"age": value}, "reasons": {"age": reason}})])
    return [one.likely for one in differences(VIEW, served, {"age": known}, {"age": by_event or known})]


@pytest.mark.parametrize(
    ("value", "reason", "known"),
    [
        (3, "present", Known(3, None)),
        (0, "missing", Known(0, "missing")),
        (0, "missing", Known(0, "expired")),
        (NAN, "present", Known(NAN, None)),
        (None, "missing", Known(None, "missing")),
        (0, "unavailable", Known(3, None)),  # the store was down, and said nothing
    ],
)
def test_equal_answers_are_no_difference(value: object, reason: str, known: Known) -> None:
    assert likely(value, reason, known) == []


@pytest.mark.parametrize(
    ("value", "reason", "known", "by_event", "expected"),
    [
        (3, "present", Known(2, None), Known(3, None), "it was stored in files only after it had been served"),
        (3, "present", Known(0, "missing"), Known(0, "missing"), "the value is in no file"),
        (3, "present", Known(2, None), Known(2, None), "another value was the latest online than in the files"),
        (0, "missing", Known(3, None), None, "the value was not online (missing)"),
        (0, "expired", Known(0, None), None, "the value was not online (expired)"),
        (0, "other version", Known(3, None), None, "the latest value was of another version"),
        (1, "missing", Known(0, "missing"), None, "the default was another one"),
    ],
)
def test_a_difference_has_its_likely_reason(
    value: object, reason: str, known: Known, by_event: Known | None, expected: str
) -> None:
    (told,) = likely(value, reason, known, by_event)
    assert expected in told


def test_features_that_are_not_in_the_line_or_not_declared_are_not_compared() -> None:
    (served,) = served_in([json.dumps(LINE | {"values": {"gone": 1}, "reasons": {"gone": "present"}})])
    assert not list(differences(VIEW, served, {"age": Known(3, None)}, {"age": Known(3, None)}))


def test_a_line_is_read_as_it_was_written() -> None:
    assert list(served_in([json.dumps(LINE), "\n"])) == [
        Served("acme", "stats", "u1", AT_MS, {"age": 3}, {"age": "present"})
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "2: "),
        ("[]", "2: is no JSON object"),
        ("[" * 100_000, "2: "),
        (json.dumps(LINE | {"id": 7}), "2: id: expected a text"),
        (json.dumps(LINE | {"at": "noon"}), "2: at: expected milliseconds since 1970"),
        (json.dumps(LINE | {"at": 10**30}), "2: at: expected milliseconds since 1970"),
        (json.dumps(LINE | {"values": [3]}), "2: values: expected an object"),
        (json.dumps(LINE | {"values": {"age": [3]}}), "2: values: expected an object"),
        (json.dumps({name: value for name, value in LINE.items() if name != "reasons"}), "2: reasons: expected"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, expected: str) -> None:
    with pytest.raises(BadLine) as caught:
        list(served_in([json.dumps(LINE), line]))
    assert str(caught.value).startswith(expected)


def check(folder: Path, *lines: dict[str, Any] | str, words: tuple[str, ...] = ()) -> Any:
    (folder / "my.yaml").write_text(SETTINGS.format(state=folder / "state") + FEATURES)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "served.jsonl").write_text(text)
    arguments = ("check", str(folder / "served.jsonl"), "--config", str(folder / "my.yaml"), *words)
    return CliRunner().invoke(app, ["features", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [Row("u1", NOON - SECOND, NOON - SECOND, {"age": 3}), Row("u1", NOON, NOON + SECOND, {"age": 4})]
    stored(tmp_path / "state" / "features", VIEW, rows)
    return tmp_path


def test_answers_that_the_history_confirms_are_code_0(folder: Path) -> None:
    result = check(folder, LINE, LINE | {"at": AT_MS + 1000, "values": {"age": 4}}, LINE | {"view": "gone"})
    assert result.exit_code == 0, result.output
    assert "3 answers, 1 of them of views that are not declared; 0 values differ" in " ".join(result.stderr.split())


def test_differences_are_listed_with_their_reasons_and_code_1(folder: Path) -> None:
    lines = (LINE, LINE | {"values": {"age": 4}}, LINE | {"tenant": "globex"})
    result = check(folder, *lines, words=("--json",))
    assert result.exit_code == 1
    late, unknown = json.loads(result.stdout)["differences"]
    assert late == {
        "tenant": "acme",
        "view": "stats",
        "id": "u1",
        "at": AT_MS,
        "feature": "age",
        "served": 4,
        "known": 3,
        "likely": "it was stored in files only after it had been served",
    }
    assert (unknown["tenant"], unknown["known"]) == ("globex", 0)
    assert unknown["likely"].startswith("the value is in no file")
    result = check(folder, *lines)
    assert result.exit_code == 1
    assert "2 values differ" in result.stderr
    assert "globex" in result.stdout


def test_what_was_pushed_to_a_server_that_has_ended_is_in_the_history(folder: Path) -> None:
    spool = Spool(folder / "state" / "features", ManualClock(NOON * 1000))
    asyncio.run(spool.append("globex", VIEW, [PushedRow("u1", AT_MS, {"age": 3})]))
    spool.end_file()
    result = check(folder, LINE | {"tenant": "globex"})
    assert result.exit_code == 0, result.output


def test_a_bad_line_is_named_by_file_and_line(folder: Path) -> None:
    result = check(folder, LINE, "nonsense")
    assert result.exit_code == 1
    assert "served.jsonl:2: " in result.stderr
