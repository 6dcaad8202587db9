"""Tests the audit: what is written is read back, the newest first; it is bounded, and broken lines disturb nobody."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.bounded_folder import PARTS
from serving.gateway.audit import MOST_TEXT, AuditLog, Entry, entry_of, line_of
from tests.gateway.stories import fixed


def entry(at_s: float = 1.0, object: str = "model", **more: str) -> Entry:
    values = {"tenant": "acme", "key_id": "id", "action": "load", "result": "done", "address": "192.0.2.1"} | more
    return Entry(at_s=at_s, object=object, **values)


def test_the_newest_entries_of_all_processes_are_read_back(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path, "replica"), AuditLog(tmp_path, "front")
    for at in range(0, 10, 2):
        one.write([entry(at)])
        other.write([entry(at + 1, "ü\n\x1b[31m")])
    assert [found.at_s for found in one.last(4)] == [9, 8, 7, 6]
    assert one.last(1) == [entry(9.0, "ü\n\x1b[31m")]
    assert len(other.last(100)) == 10
    assert AuditLog(tmp_path / "none", "x").last(5) == []


def test_a_file_is_read_from_its_end_over_many_blocks(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, "replica")
    log.write(entry(at) for at in range(2000))
    assert [found.at_s for found in log.last(1500)] == list(range(1999, 499, -1))


def test_lines_that_are_cut_or_foreign_are_left_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, "replica")
    log.write([entry(1)])
    with log.path.open("ab") as file:
        file.write(b'{"at_s": "now"}\n[]\n\xff\n{"at_s": true}\n' + line_of(entry(2)).encode()[:-9])
    assert log.last(10) == [entry(1)]


@given(st.binary(max_size=80))
def test_whatever_a_line_holds_it_is_an_entry_or_none(line: bytes) -> None:
    assert entry_of(line) is None


@given(st.text(max_size=300), st.text(max_size=20))
def test_an_entry_is_one_line_of_ascii(object: str, tenant: str) -> None:
    line = line_of(entry(1.0, object, tenant=tenant))
    assert line.isascii()
    assert "\n" not in line
    assert len(json.loads(line)["object"]) <= MOST_TEXT + 3


def test_a_key_in_what_a_client_sent_is_not_written() -> None:
    key = fixed(1)
    for at in range(0, 2 * MOST_TEXT, 17):  # also where the text is cut
        assert key.text.split("_")[2][:20] not in line_of(entry(1.0, "x" * at + f"/{key.text}", address=key.text))


def test_the_folder_is_bounded_and_the_oldest_files_go_first(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, "replica", most_bytes=PARTS * 1000)
    for at in range(200):
        log.write([entry(at)])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= PARTS * 1000
    found = [one.at_s for one in log.last(1000)]
    assert found == list(range(199, 199 - len(found), -1))
    assert len(found) > 20


def test_files_are_closed_to_others(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit", "replica")
    log.write([entry()])
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_disk_that_refuses_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit", "replica")
    log.write([entry()])
    log.write([entry()])
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["the audit cannot be written"]
