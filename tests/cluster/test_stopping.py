"""Tests the signals that end a server, and taken ports that prevent its start."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from serving.config import load_settings
from serving.operate.launch import Cluster, StartFailed
from serving.operate.processes import Interrupted, StopSignal
from tests.cluster.conftest import NOOP, PORT, settings_file


@pytest.fixture(autouse=True)
def handlers():
    """Sets the signal handlers as a terminal does (nohup ignores some), and restores them afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_handler_is_installed_again_after_another_has_replaced_it(number: signal.Signals) -> None:
    stop = StopSignal()
    signal.signal(number, lambda *_: pytest.fail("the other heard it"))
    stop.listen()
    assert not stop.wait(0)
    os.kill(os.getpid(), number)
    assert stop.wait(10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_start_interrupts_it_once_and_is_remembered(number: signal.Signals) -> None:
    stop = StopSignal()
    with pytest.raises(Interrupted), stop.interrupting():
        os.kill(os.getpid(), number)
    assert not issubclass(Interrupted, Exception), "what is interrupted must not take it for a failure of its own"
    os.kill(os.getpid(), number)  # a second signal does not interrupt the end
    assert stop.wait(0)
    with pytest.raises(Interrupted), stop.interrupting():
        pytest.fail("it came before the start")


def test_an_ignored_sighup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = StopSignal()
    stop.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.wait(0)


def test_the_end_of_a_server_that_never_began_ends_nothing(tmp_path: Path) -> None:
    path = settings_file(tmp_path, NOOP)
    with subprocess.Popen(["sleep", "infinity"]) as bystander:
        Cluster(load_settings(path), path, print).stop()
        assert bystander.poll() is None
        bystander.kill()


def test_a_package_that_the_settings_need_is_asked_for_before_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jwt = {"issuer": "https://id.example", "audience": "headway", "jwks": "https://id.example/jwks.json"}
    path = settings_file(
        tmp_path, NOOP, auth={"keys": True, "jwt": jwt}, redis={"url": "redis://localhost"}, haproxy="off"
    )
    views = "{stats: {entity: user, features: {age: {type: INT64}}}}"
    path.write_text(f"{path.read_text()}features: {{entities: {{user: {{key: user_id}}}}, views: {views}}}\n")
    monkeypatch.setattr("serving.operate.extras.find_spec", lambda package: None)
    with pytest.raises(StartFailed) as failed:
        Cluster(load_settings(path), path, print).start()
    assert str(failed.value).splitlines() == [
        "server.auth.keys needs the package obstore: pip install 'headway[auth]'",
        "server.auth.jwt needs the package jwt: pip install 'headway[auth]'",
        "server.redis needs the package redis: pip install 'headway[redis]'",
        "features needs the package redis: pip install 'headway[redis]'",
    ]


def test_a_port_in_use_is_reported_before_ray_is_started(tmp_path: Path) -> None:
    port = PORT + 20  # not any free port, because that could be one of Ray's
    with socket.create_server(("127.0.0.1", port)):
        path = settings_file(tmp_path, NOOP, http_port=port, haproxy="off")
        said: list[str] = []
        with pytest.raises(StartFailed, match=rf"^port {port}, wanted by the server: Address already in use; find"):
            Cluster(load_settings(path), path, said.append).start()
    assert not said


def test_a_host_that_is_not_this_machine_is_reported_before_ray_is_started(tmp_path: Path) -> None:
    path = settings_file(tmp_path, NOOP, host="192.0.2.77", haproxy="off", auth="none")
    with pytest.raises(StartFailed, match=r"server\.host 192\.0\.2\.77: Cannot assign requested address"):
        Cluster(load_settings(path), path, print).start()
