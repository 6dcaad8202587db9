"""Tests `headway keys`: making, listing, revoking and rotating keys, for people and programs, and that none leaks."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.core.clock import Calendar
from serving.gateway.audit import AuditLog
from serving.gateway.callers import Callers
from serving.gateway.key_log import FOLDER, KeyLog
from serving.gateway.key_text import presented
from serving.store.objects import open_store
from serving.store.place import NoState, state_place

Headway = Callable[..., Result]
ACME = ("create", "--tenant", "acme", "--scope", "predict")


@pytest.fixture
def headway(tmp_path: Path) -> Headway:
    return lambda *arguments: CliRunner().invoke(app, ["keys", *arguments, "--state", str(tmp_path / "state")])


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def tenant_of(tmp_path: Path, key: str) -> str:
    """Returns the tenant that a server with this state finds for the key."""
    callers = Callers(KeyLog(open_store(str(tmp_path / "state"))))
    asyncio.run(callers.look(Calendar.now_ns()))
    return callers.of(f"Bearer {key}").tenant


def test_a_key_is_printed_alone_and_a_server_takes_it(headway: Headway, tmp_path: Path) -> None:
    result = headway(*ACME, "--scope", "feedback")
    key = result.stdout.strip()
    assert result.stdout == f"{key}\n"
    assert tenant_of(tmp_path, key) == "acme"
    id = presented(key.encode()).id
    assert f"id {id}, tenant acme, scopes feedback, predict; ends 2" in result.stderr
    assert key not in result.stderr


def test_keys_are_listed_for_people_and_for_programs(headway: Headway) -> None:
    assert "no keys here" in headway("list").stderr
    made = told(headway(*ACME, "--expires", "never", "--json"))
    other = told(headway("create", "--tenant", "globex", "--scope", "admin", "--json"))
    listed = told(headway("list", "--json"))
    assert {one["id"]: (one["tenant"], one["scopes"], one["state"]) for one in listed} == {
        made["id"]: ("acme", ["predict"], "active"),
        other["id"]: ("globex", ["admin"], "active"),
    }
    assert [one["expires"] for one in listed if one["id"] == made["id"]] == [None]
    assert [one["id"] for one in told(headway("list", "--tenant", "acme", "--json"))] == [made["id"]]
    shown = headway("list").stdout
    assert made["id"] in shown
    assert "globex" in shown


def test_a_revoked_key_is_refused_and_revoked_once(headway: Headway, tmp_path: Path) -> None:
    key = headway(*ACME).stdout.strip()
    assert told(headway("revoke", key, "--json"))["state"] == "revoked"  # a whole key is taken for its id
    with pytest.raises(Exception, match="no valid credential"):
        tenant_of(tmp_path, key)
    again = headway("revoke", presented(key.encode()).id)
    assert (again.exit_code, "is revoked already, since 2" in again.stderr) == (1, True)


def test_a_rotation_leaves_both_keys_valid_for_the_overlap(headway: Headway, tmp_path: Path) -> None:
    old = told(headway(*ACME, "--scope", "feedback", "--expires", "30d", "--json"))
    new = told(headway("rotate", old["id"], "--overlap", "1h", "--json"))
    assert {tenant_of(tmp_path, key["key"]) for key in (old, new)} == {"acme"}
    assert (new["scopes"], new["replaces"]["replaced_by"]) == (["feedback", "predict"], new["id"])
    assert new["replaces"]["expires"] < old["expires"] <= new["expires"]
    again = headway("rotate", old["id"])
    assert (again.exit_code, again.stderr.strip()) == (
        1,
        f"{old['id']} is rotated already: {new['id']} is in its place",
    )
    headway("revoke", new["id"])
    assert f"{new['id']} is revoked; make a new key" in headway("rotate", new["id"]).stderr


def test_a_rotation_without_overlap_ends_the_old_key_at_once(headway: Headway, tmp_path: Path) -> None:
    old = told(headway(*ACME, "--json"))
    new = headway("rotate", old["id"], "--overlap", "0s", "--expires", "never").stdout.strip()
    assert tenant_of(tmp_path, new) == "acme"
    with pytest.raises(Exception, match="no valid credential"):
        tenant_of(tmp_path, old["key"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--tenant", "a b", "--scope", "predict"), "--tenant: use 1 to 64 visible ASCII characters"),
        ((*ACME, "--expires", "soon"), "--expires: write a number with its unit, such as 90d, 12h or 30m, or never"),
        ((*ACME, "--expires", "0d"), "--expires: write a number"),
        ((*ACME, "--expires", "99999999d"), "--expires: write a number"),
        (("rotate", "0" * 12, "--overlap", "never"), "--overlap: write a number"),
        (("revoke", "x"), "ID: that is no id of a key"),
        (("create", "--tenant", "acme", "--scope", "fly"), "predict"),
        (("create", "--scope", "predict"), "--tenant"),
        (("list", "--config", "my.yaml"), "give --config or --state, not both"),
    ],
)
def test_a_mistake_in_the_command_line_is_named(headway: Headway, arguments: tuple[str, ...], message: str) -> None:
    result = headway(*arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_key_that_is_not_there_is_not_found(headway: Headway) -> None:
    for verb in ("revoke", "rotate"):
        result = headway(verb, "0" * 12)
        assert (result.exit_code, result.stderr) == (
            1, "no key has the id 000000000000; `headway keys list` shows them\n"
        )  # fmt: skip


def test_a_key_that_was_cut_is_not_repeated(headway: Headway) -> None:
    key = headway(*ACME).stdout.strip()
    result = headway("revoke", key[:-2])
    assert result.exit_code == 2
    assert key[20:40] not in result.output


def test_where_keys_live_is_read_from_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    tensor = "[{name: x, datatype: FP32, shape: [-1, 1]}]"
    file.write_text(
        f"server: {{state: kept}}\nmodels: [{{name: m, factory: 'a:b', inputs: {tensor}, outputs: {tensor}}}]\n"
    )
    assert CliRunner().invoke(app, ["keys", *ACME, "--config", str(file)]).exit_code == 0
    assert len(list((tmp_path / "kept" / FOLDER).iterdir())) == 1
    file.write_text("server: {stat: kept}\n")
    result = CliRunner().invoke(app, ["keys", "list", "--config", str(file)])
    assert (result.exit_code, "did you mean 'state'?" in result.stderr) == (2, True)


def test_without_a_setting_keys_live_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    assert state_place(None) == "/home/anna/.headway/state"
    assert state_place("s3://bucket/x") == "s3://bucket/x"

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(NoState, match=r"set server\.state"):
        state_place(None)


def test_a_store_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["keys", *ACME, "--state", str(tmp_path / "file" / "state")])
    assert (result.exit_code, result.stderr.startswith("the keys cannot be reached: ")) == (1, True)
    assert result.stdout == ""
    result = CliRunner().invoke(app, ["keys", "list", "--state", "gs://bucket"])
    assert (result.exit_code, "is no place for objects" in result.stderr) == (2, True)


def test_a_record_that_cannot_be_read_stops_all_changes_but_revocations(headway: Headway, tmp_path: Path) -> None:
    made = told(headway(*ACME, "--json"))
    (tmp_path / "state" / FOLDER / f"{2:012}.json").write_text('{"version": 2, "kind": "frozen", "at_s": 5}')
    assert "000000000002.json is not of version 1" in headway("list").stderr
    result = headway(*ACME)
    assert (result.exit_code, "nothing was changed" in result.stderr) == (1, True)
    assert told(headway("revoke", made["id"], "--json"))["state"] == "revoked"


def test_changes_are_in_the_audit(headway: Headway, tmp_path: Path) -> None:
    made = told(headway(*ACME, "--json"))
    headway("revoke", made["id"])
    headway("revoke", made["id"])
    found = AuditLog(tmp_path / "state" / "audit", "test").last(10)
    assert sorted((one.action, one.object, one.tenant, one.result) for one in found) == [
        ("keys create", made["id"], "acme", "done"),
        ("keys revoke", made["id"], "", "failed"),
        ("keys revoke", made["id"], "acme", "done"),
    ]
    assert all(one.key_id.startswith("user:") for one in found)


def test_no_secret_is_in_any_file_or_output_but_the_one_that_prints_it(headway: Headway, tmp_path: Path) -> None:
    old = told(headway(*ACME, "--json"))
    new = told(headway("rotate", old["id"], "--json"))
    results = [headway("list"), headway("list", "--json"), headway("revoke", old["key"]), headway("revoke", old["key"])]
    texts = [result.output for result in results]
    texts += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) >= 8
    for key in (old["key"], new["key"]):
        secret = key.split("_")[2]
        assert all(secret[at : at + 12] not in text for text in texts for at in range(0, 31, 6))


def test_the_help_says_how_to_go_on(headway: Headway) -> None:
    assert "five seconds" in " ".join(CliRunner().invoke(app, ["keys", "--help"]).output.split())
    for verb in ("create", "list", "revoke", "rotate"):
        result = CliRunner().invoke(app, ["keys", verb, "--help"])
        assert result.exit_code == 0
        for option in ("--json", "--state", "--config"):
            assert option in result.output, verb
