"""Tests `headway registry` as people and programs use it: from a folder to an approved version, back, and to MLflow."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.registry.log import Split, written
from tests.registry.artifacts import FILES, MODEL, artifact

Headway = Callable[..., Result]
PUSH = ("--model", "ranker", "--by", "anna")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def headway(place: Path) -> Headway:
    return lambda *arguments: CliRunner().invoke(app, ["registry", *arguments, "--registry", str(place)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = artifact(tmp_path / "ranker")
    (made / "model.yaml").write_text(yaml.safe_dump(MODEL))
    return made


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def route(place: Path, split: Split) -> None:
    """Adds a record as a release does."""
    log = place / "models" / "ranker" / "log"
    record = written("routed", now_s=0, by="user:test", nonce="n", split=split)
    (log / f"{len(list(log.iterdir())) + 1:012}.json").write_bytes(record)


def two(headway: Headway, folder: Path) -> None:
    assert headway("push", str(folder), *PUSH).exit_code == 0
    (folder / "scale.txt").write_text("4")
    assert headway("push", str(folder), *PUSH).exit_code == 0


def test_a_folder_becomes_a_version_and_the_same_again_is_told(headway: Headway, folder: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "m.json"
    metrics.write_text('{"auc": 0.9}')
    first = headway("push", str(folder), *PUSH, "--metrics", str(metrics), "--why", "first")
    assert (first.exit_code, first.stdout) == (0, "ranker@v1\n")
    assert "approve ranker@v1" in first.stderr
    again = headway("push", str(folder), *PUSH, "--metrics", str(metrics))
    assert (again.exit_code, again.stdout) == (0, "ranker@v1\n")
    assert "this content is v1 already" in again.stderr
    assert told(headway("push", str(folder), *PUSH, "--json")) | {"digest": ""} == {
        "model": "ranker",
        "version": "2",
        "digest": "",
        "new": True,
    }


def test_versions_are_listed_shown_and_compared(headway: Headway, folder: Path, tmp_path: Path) -> None:
    assert "no models here" in headway("list").stderr
    metrics = tmp_path / "m.json"
    for number, auc in enumerate((0.9, 0.92)):
        metrics.write_text(json.dumps({"auc": auc}))
        headway("push", str(folder), *PUSH, "--metrics", str(metrics), "--code", f"rev{number}", "--data", "flights")
    assert "ranker" in headway("list").stdout
    listed = told(headway("list", "ranker", "--json"))
    assert [(one["version"], one["by"]) for one in listed["versions"]] == [("1", "user:anna"), ("2", "user:anna")]
    shown = told(headway("show", "ranker@v2", "--json"))
    assert (shown["manifest"]["metrics"], shown["manifest"]["code"]) == ({"auc": 0.92}, "rev1")
    assert "auc 0.92" in headway("show", "ranker").stdout
    compared = told(headway("diff", "ranker", "v1", "v2", "--json"))["differences"]
    assert compared == {
        "metrics.auc": {"old": "0.9", "new": "0.92"},
        "code": {"old": "rev0", "new": "rev1"},
    }
    assert "+0.02" in headway("diff", "ranker", "1", "2").stdout
    assert "do not differ" in headway("diff", "ranker", "v1", "v1").stderr


def test_others_approve_and_take_it_back(headway: Headway, folder: Path) -> None:
    two(headway, folder)
    refused = headway("approve", "ranker@v1", "--by", "anna")
    assert refused.exit_code == 1
    assert "somebody else has to approve it" in refused.stderr
    assert "approved by ben" in headway("approve", "ranker@v1", "--by", "ben", "--why", "looks good").stderr
    approved = told(headway("approve", "ranker@v1", "--by", "cleo", "--json"))
    assert [one["by"] for one in approved["approvals"]] == ["user:ben", "user:cleo"]
    assert "approved by cleo" in headway("revoke", "ranker@v1", "--by", "ben").stderr
    assert "approved by nobody" in headway("revoke", "ranker@v1", "--by", "ben", "--of", "cleo").stderr
    history = told(headway("history", "ranker", "--json"))
    assert [(one["kind"], one["by"]) for one in history][2:] == [
        ("approved", "user:ben"),
        ("approved", "user:cleo"),
        ("approval_revoked", "user:ben"),
        ("approval_revoked", "user:ben"),
    ]
    assert "looks good" in headway("history", "ranker").stdout


def test_a_rollback_takes_the_traffic_back(headway: Headway, folder: Path, place: Path) -> None:
    two(headway, folder)
    assert "nothing to roll back" in headway("rollback", "ranker").stderr
    route(place, Split("1"))
    route(place, Split("1", "2", 500))
    assert "v1 answers" in headway("rollback", "ranker", "--why", "too slow").stderr
    route(place, Split("2"))
    assert told(headway("rollback", "ranker", "--json"))["route"] == {"stable": "1", "candidate": None, "share": 0}
    assert "v2 answers" in headway("rollback", "ranker", "--to", "v2").stderr
    assert "stable" in headway("list", "ranker").stdout


def test_archived_versions_lose_their_files_once_they_are_a_day_old(
    headway: Headway, folder: Path, place: Path
) -> None:
    two(headway, folder)
    assert headway("archive", "ranker@v1").exit_code == 0
    assert told(headway("gc", "--dry-run", "--json")) == {"would_remove": []}
    assert "0 objects are removed" in headway("gc", "ranker").stderr
    for path in (place / "models" / "ranker" / "versions").rglob("*"):
        os.utime(path, (0, 0))
    (place / "unfinished" / "killed").write_text("")
    os.utime(place / "unfinished" / "killed", (0, 0))
    removed = told(headway("gc", "--json"))["removed"]
    assert removed[0] == "unfinished/killed"
    assert sorted(path.partition("/files/")[2] for path in removed[1:]) == sorted(FILES)
    assert "good, 4 files" in headway("verify", "ranker").stderr


def test_every_byte_is_verified(headway: Headway, folder: Path, place: Path) -> None:
    two(headway, folder)
    assert headway("verify", "ranker").exit_code == 0
    damaged = next(place.glob("models/ranker/versions/*/files/scale.txt"))
    damaged.write_text("9")
    result = headway("verify", "ranker")
    assert result.exit_code == 1
    assert "scale.txt: does not match its hash" in result.stderr
    assert sorted(line[4:8] for line in result.stderr.splitlines() if line[:1] == "v") == ["bad", "good"]


def test_an_exported_version_is_the_same_when_it_is_imported(headway: Headway, folder: Path, tmp_path: Path) -> None:
    headway("push", str(folder), *PUSH, "--code", "abc")
    exported = tmp_path / "exported"
    assert headway("export", "ranker@v1", str(exported)).exit_code == 0
    assert (exported / "MLmodel").is_file()
    assert yaml.safe_load((exported / "model" / "model.yaml").read_text()) == MODEL
    again = told(headway("import", f"mlflow:{exported}", "--model", "ranker", "--json"))
    assert (again["version"], again["new"]) == ("1", False)
    assert "exists already" in headway("export", "ranker@v1", str(exported)).stderr


MISTAKES: dict[str, tuple[tuple[str, ...], int]] = {
    "name a version, as in ranker@v4": (("approve", "ranker"), 2),
    "has no model 'nobody'": (("show", "nobody"), 1),
    "there is no version 'v9'; there is v1": (("show", "ranker@v9"), 1),
    "write mlflow:DIR": (("import", "/tmp", "--model", "x"), 2),
    "holds no file MLmodel": (("import", "mlflow:.", "--model", "x"), 1),
    "is no name of a model": (("history", "a/b"), 1),
    "is no folder": (("push", "/no/such", "--model", "x"), 1),
    "m.json: ": (("push", ".", "--model", "x", "--metrics", "no-such-m.json"), 2),
}


@pytest.mark.parametrize("why", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(why: str, headway: Headway, folder: Path) -> None:
    headway("push", str(folder), *PUSH)
    arguments, code = MISTAKES[why]
    result = headway(*arguments)
    assert (result.exit_code, why in result.stderr) == (code, True), result.output
    assert "Traceback" not in result.output


UNFIT: dict[str, tuple[tuple[str, ...], str, int]] = {
    "metrics.auc is nan, which JSON does not hold": (("--metrics",), '{"auc": NaN}', 1),
    "metrics.by.slices[1] is inf": (("--metrics",), '{"by": {"slices": [1, 1e999]}}', 1),
    "can't decode byte 0xff": (("--environment",), "\xff", 2),
    "--why: must be a text of one line": (("--why", "fine\x1b[2J"), "", 2),
    "--by: must be a text of one line": (("--by", "ann\nben"), "", 2),
    "--by: must be a text of one line, of 1": (("--by", ""), "", 2),
}


@pytest.mark.parametrize("why", UNFIT)
def test_what_cannot_be_kept_of_a_version_is_told_in_a_sentence(
    why: str, headway: Headway, folder: Path, tmp_path: Path
) -> None:
    option, content, code = UNFIT[why]
    file = tmp_path / "file"
    file.write_bytes(content.encode("latin-1"))
    result = headway("push", str(folder), *PUSH, *option, *([str(file)] if content else []))
    assert (result.exit_code, why in result.stderr) == (code, True), result.output
    assert headway("list").stdout == ""


@pytest.mark.parametrize("options", ["{scale: .nan}", "{since: 2026-11-29}", "{key: !!binary aGVsbG8=}"])
def test_options_that_json_does_not_hold_are_refused_by_their_names(
    options: str, headway: Headway, folder: Path
) -> None:
    model = yaml.safe_dump({key: value for key, value in MODEL.items() if key != "options"})
    (folder / "model.yaml").write_text(f"{model}options: {options}\n")
    result = headway("push", str(folder), *PUSH)
    assert result.exit_code == 1, result.output
    assert f"model.options.{options[1:].partition(':')[0]} is a" in result.stderr.replace("is nan", "is a nan")


def test_an_empty_place_is_a_mistake_and_not_the_place_of_this_machine(folder: Path) -> None:
    result = CliRunner().invoke(app, ["registry", "push", str(folder), *PUSH, "--registry", ""])
    assert (result.exit_code, "--registry: is empty" in result.stderr) == (2, True), result.output


def test_a_model_with_routes_alone_has_no_version_to_show(headway: Headway, place: Path) -> None:
    (place / "models" / "ranker" / "log").mkdir(parents=True)
    route(place, Split("2"))
    assert "the registry has no version of ranker" in headway("show", "ranker").stderr


BAD_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "replicas: belongs into the settings of a server": ("replicas", {"replicas": 2}),
    "factory: names a version of the registry": ("factory", {"factory": "registry:other"}),
    "inputs: needs at least 1 entry": ("inputs", {"inputs": []}),
    "'../secret' leaves the folder": ("options", {"options": {"path": "../secret"}}),
    "'/etc/passwd' leaves the folder": ("options", {"options": {"paths": ["/etc/passwd"]}}),
    "cannot be read": ("labels", {"labels": {"y": "missing.txt"}}),
    "unknown key; did you mean 'options'?": ("optionz", {"optionz": 1}),
}


@pytest.mark.parametrize("why", BAD_MODELS)
def test_a_model_yaml_with_a_mistake_is_refused_with_its_line(why: str, headway: Headway, folder: Path) -> None:
    _, changes = BAD_MODELS[why]
    (folder / "model.yaml").write_text(yaml.safe_dump(MODEL | changes))
    result = headway("push", str(folder), *PUSH)
    assert result.exit_code == 2
    assert why in result.stderr
    assert "model.yaml:" in result.stderr


def test_a_registry_is_where_the_settings_say(folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "headway.yaml"
    settings.write_text("registry: {place: ./versions}\nmodels: [{name: ranker, factory: 'registry:ranker'}]\n")
    runner = CliRunner()
    result = runner.invoke(app, ["registry", "push", str(folder), *PUSH, "--config", str(settings)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "versions" / "models" / "ranker" / "log").is_dir()
    both = ["registry", "list", "--config", str(settings), "--registry", "x"]
    assert runner.invoke(app, both).exit_code == 2


def test_a_record_that_cannot_be_read_stops_changes_and_is_told(headway: Headway, folder: Path, place: Path) -> None:
    two(headway, folder)
    (place / "models" / "ranker" / "log" / "000000000003.json").write_text("{")
    assert "000000000003.json is not JSON" in headway("list", "ranker").stderr
    result = headway("approve", "ranker@v1", "--by", "ben")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
