"""The parts of the comparison around the measurement: starting, stopping, requests, arguments."""

import struct
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.peers.__main__ import NAMES, read_arguments
from benchmarks.peers.catalog import peers
from benchmarks.peers.environment import Environment, clean
from benchmarks.peers.machine import processor
from benchmarks.peers.request import ROW, is_right, request
from benchmarks.peers.running import DidNotStart, running

PARENT_OF_A_CHILD_THAT_LEAVES_THE_SESSION = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print('started', flush=True)\n"
    "time.sleep(600)\n"
)


def test_a_server_that_ends_at_once_is_reported_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]
    with running(command, clean(), tmp_path, tmp_path / "log") as server, pytest.raises(DidNotStart) as failure:
        server.wait_until(lambda: False, limit_s=30)
    assert str(failure.value) == "ended with code 3\nno such model\n"


def test_stopping_ends_also_a_child_that_left_the_session(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT_OF_A_CHILD_THAT_LEAVES_THE_SESSION]
    with running(command, clean(), tmp_path, tmp_path / "log") as server:
        server.wait_until(lambda: "started" in server.log_tail() and len(server.members()) == 2, limit_s=30)
        server.stop(terminate_s=0.5)
        assert server.members() == {}


def test_both_forms_of_the_request_carry_the_same_row() -> None:
    raw, _ = request("raw")
    body, headers = request("oip")
    assert raw == ROW
    assert body[int(headers["Inference-Header-Content-Length"]) :] == ROW


def test_an_answer_is_right_when_its_last_numbers_are_the_expected_ones() -> None:
    expected = [1.0, -2.0]
    assert is_right(b'{"outputs":[]}' + struct.pack("<2f", 1.0001, -2.0), expected)
    assert not is_right(struct.pack("<2f", 1.1, -2.0), expected)
    assert not is_right(b"", expected)


def test_environment_variables_that_affect_a_peer_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert not {"RAY_ADDRESS", "PYTHONPATH"} & set(clean())


def test_every_peer_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    assert tuple(peer.name for peer in peers(Environment(tmp_path), tmp_path)) == NAMES


def test_all_models_of_a_peer_are_at_its_port(tmp_path: Path) -> None:
    for peer in peers(Environment(tmp_path), tmp_path):
        assert {urlsplit(url).port for url in peer.urls.values()} == {peer.port}


def test_an_unknown_peer_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(["--peers", "headway,apache"])
    assert "no such peer: apache; known are headway" in capsys.readouterr().err


def test_the_processor_is_named_with_its_vector_width() -> None:
    assert processor("model name\t: Some CPU\nflags\t\t: sse avx2\n") == "Some CPU (AVX2)"
