"""Tests the signals that end a server, and taken ports that prevent its start."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
import ray
from ray import serve

import serving.cluster.app
from serving.config import load_settings
from serving.operate import launch
from serving.operate.launch import Cluster, StartFailed
from serving.operate.processes import STOPS, Interrupted, StopSignal, descendants, is_alive
from tests.cluster.conftest import NOOP, PORT, settings_file
from tests.patience import eventually


@pytest.fixture(autouse=True)
def handlers():
    """Sets the signal handlers as a terminal does (nohup ignores some), and restores them afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
def test_others_do_not_replace_the_handlers_while_they_are_kept(number: signal.Signals) -> None:
    stop = StopSignal()
    with stop.keeping():
        before = signal.signal(number, lambda *_: pytest.fail("the other heard it"))
        assert before == signal.getsignal(number)
        os.kill(os.getpid(), number)
        assert stop.wait(10)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN, "other signals are of no concern"
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    mine = lambda *_: None  # noqa: E731
    signal.signal(number, mine)
    assert signal.getsignal(number) is mine


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_raises_nowhere_but_where_it_is_asked_for(number: signal.Signals) -> None:
    stop = StopSignal()
    stop.check()
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)
    for _ in range(2):
        with pytest.raises(Interrupted):
            stop.check()
    assert not issubclass(Interrupted, Exception), "what is interrupted must not take it for a failure of its own"


CRASH_HANDLER = "RAY_DISABLE_FAILURE_SIGNAL_HANDLER"


class FakeStart:
    """Stands for Ray: the steps of a start, of which the n-th sends a signal to this process before it goes on. As Ray
    does, the first step starts a process and installs a handler of SIGTERM that ends this one by an exception."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: signal.Signals) -> None:
        self.steps: list[str] = []
        self.helpers: list[subprocess.Popen[bytes]] = []
        self._at, self._number = at, number
        self._has_controller = Event()
        monkeypatch.delenv(CRASH_HANDLER, raising=False)
        nothing = SimpleNamespace(applications={})
        for place, name, answer in (
            (Cluster, "_check_ports", None),
            (ray, "init", None),
            (serve, "start", None),
            (ray, "cluster_resources", {}),
            (serving.cluster.app, "deploy", None),
            (serve, "status", nothing),
            (Cluster, "_is_up", True),
            (Cluster, "announcement", ["ready"]),
            (ray, "is_initialized", True),
            (ray, "shutdown", None),
        ):
            monkeypatch.setattr(place, name, partial(self._step, name, answer))
        monkeypatch.setattr(ray, "get_actor", self._get_actor)
        monkeypatch.setattr(Cluster, "_own_environment", lambda cluster: {})
        monkeypatch.setattr("serving.operate.launch.ray_environment", lambda settings: {})

    def _step(self, name: str, answer: object, *_: object, **__: object) -> object:
        self.steps.append(name)
        if name == "init":
            assert os.environ[CRASH_HANDLER] == "1", "Ray's C++ would abort at SIGTERM"
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
            self.helpers.append(subprocess.Popen(["sleep", "infinity"]))
        if len(self.steps) == self._at:
            os.kill(os.getpid(), self._number)
        if name == "start":
            self._has_controller.set()
        return answer

    def _get_actor(self, name: str, namespace: str) -> None:
        """Finds the controller after the step that starts it, so that the steps of both threads have one order."""
        if not self._has_controller.is_set():
            raise ValueError(name)


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("at", range(1, 9))
def test_a_signal_at_any_step_of_the_start_ends_it_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, number: signal.Signals
) -> None:
    fake = FakeStart(monkeypatch, at, number)
    path = settings_file(tmp_path, NOOP, grpc_port=None)
    said: list[str] = []
    launch.serve(load_settings(path), path, said.append)
    assert said[-2:] == ["stopping …", "stopped"]
    steps = [name for name in fake.steps if name not in ("is_initialized", "shutdown")]
    last = steps[at - 1 :]
    assert len(last) <= 3, "of a step only the rest of its own round follows"
    assert ("ready" in said) == (steps[-1] == "announcement")
    assert [helper.wait(10) for helper in fake.helpers] == [-signal.SIGTERM] * len(fake.helpers)
    assert ("shutdown" in fake.steps) == bool(fake.helpers)


# Ray itself would answer this one with an abort. The others, a start of Ray each, are part of `make chaos`.
WORST = ("raylet", signal.SIGTERM)


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("sign", "number"),
    [
        pytest.param(sign, number, marks=() if (sign, number) == WORST else pytest.mark.chaos)
        for sign in ("gcs_server", "raylet", "ServeController")
        for number in (signal.SIGINT, signal.SIGTERM)
    ],
)
def test_a_signal_while_a_real_ray_starts_leaves_nothing_behind(
    tmp_path: Path, sign: str, number: signal.Signals
) -> None:
    """Signals as soon as a process of this name has been started."""
    path = settings_file(tmp_path, NOOP, http_port=PORT + 1)
    command = [sys.executable, "-m", "serving", "serve", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        started = eventually(lambda: started_as(process.pid, sign), patience_s=200, every_s=0.02)
        process.send_signal(number)
        started |= descendants(process.pid)
        said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    assert said.splitlines()[-2:] == ["stopping …", "stopped"], said
    assert [pid for pid in started if is_alive(pid)] == []


def started_as(root: int, sign: str) -> set[int]:
    """Returns all processes below `root` if the command of one of them has this word in it; otherwise none."""
    below = descendants(root)
    commands = []
    for pid in below:
        with suppress(OSError):
            commands.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return below if any(sign.encode() in command for command in commands) else set()


def test_an_ignored_sighup_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    stop = StopSignal()
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
