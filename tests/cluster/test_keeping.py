"""Tests the folder for files of Ray and HAProxy, and the errors if it cannot be used."""

import os
from pathlib import Path

import pytest

from serving.operate import doctor
from serving.operate.doctor import Verdict
from serving.operate.keeping import Unsafe, haproxy_environment, home_trouble, kept_folder, token_environment


def test_the_folder_is_made_for_this_user_alone_and_found_again(tmp_path: Path) -> None:
    folder = kept_folder(tmp_path)
    assert folder == tmp_path / f"headway-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept_folder(tmp_path) == folder


def test_a_folder_that_another_user_has_created_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / f"headway-{os.getuid()}"
    path.mkdir(mode=0o755)
    with pytest.raises(Unsafe, match="not a folder that only this user can open"):
        kept_folder(tmp_path)
    path.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unsafe, match="not a folder that only this user can open"):
        kept_folder(tmp_path)
    with pytest.raises(Unsafe, match="cannot be created"):
        kept_folder(tmp_path / "absent")


def test_a_home_that_cannot_be_written_is_reported_with_the_reason(tmp_path: Path) -> None:
    assert home_trouble(tmp_path) == ""
    (tmp_path / "file").write_text("")
    for home, reason in {
        None: "this user has no home folder",
        Path("/proc/self"): "/proc/self cannot be written",
        tmp_path / "absent": "is not a folder",
        tmp_path / "file": "is not a folder",
    }.items():
        assert reason in home_trouble(home)
    (tmp_path / ".ray").write_text("")
    assert "is not a folder" in home_trouble(tmp_path)


def test_rays_token_goes_into_the_folder_only_where_the_home_takes_none(tmp_path: Path) -> None:
    bad = Path("/proc/self")
    assert token_environment(tmp_path, {}, tmp_path) == {}
    for given in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        assert token_environment(tmp_path, {given: "x"}, bad) == {}
    path = tmp_path / "auth_token"
    assert token_environment(tmp_path, {}, bad) == {"RAY_AUTH_TOKEN_PATH": str(path)}
    token = path.read_text()
    assert len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    token_environment(tmp_path, {}, None)
    assert path.read_text() == token, "it stays: another server of this user may run with it"


def test_haproxys_files_are_below_the_folder_and_its_sockets_names_short_enough(tmp_path: Path) -> None:
    for path in haproxy_environment(Path(f"/tmp/headway-{os.getuid()}")).values():
        assert path.startswith(f"/tmp/headway-{os.getuid()}/haproxy")
        assert len(path) + len("/") + 56 < 100, "Ray adds the node's id; a socket's path ends at 107 bytes"


def test_the_doctor_reports_both_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert doctor.check_folders("").verdict is Verdict.OK
    bad = doctor.check_folders("/home/x cannot be written: Read-only file system")
    assert (bad.verdict, "RAY_AUTH_TOKEN_PATH" in bad.advice) == (Verdict.WARN, True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    assert doctor.check_folders("").verdict is Verdict.FAIL
