"""Tests the command as an operator uses it: it starts, answers, and leaves no process behind after Ctrl-C."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.operate.launch import get_json
from serving.operate.processes import descendants, end, is_alive
from tests.cluster.conftest import NOOP, PORT, settings_file


def test_a_process_that_ignores_the_polite_signal_is_killed() -> None:
    stubborn = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, lambda *_: None); print('up', flush=True); \
[signal.pause() for _ in range(9)]",
        ],
        stdout=subprocess.PIPE,
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    assert stubborn.pid in descendants(os.getpid())
    assert end({stubborn.pid}, patience_s=0.2) == {stubborn.pid}
    assert stubborn.wait() == -signal.SIGKILL
    stubborn.stdout.close()


@pytest.mark.ray
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("haproxy", "door", "stop"), [("auto", "fast", signal.SIGINT), ("off", "plain", signal.SIGTERM)]
)
def test_serve_announces_itself_answers_and_leaves_nothing_behind(
    tmp_path: Path, haproxy: str, door: str, stop: signal.Signals
) -> None:
    path = settings_file(tmp_path, NOOP, http_port=PORT + 1, haproxy=haproxy)
    said = []
    with subprocess.Popen(
        [sys.executable, "-m", "serving", "serve", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "noop: ready" in line:
                break
        started = descendants(process.pid)
        try:
            assert any(f"{door} door" in line for line in said), said
            assert get_json(f"http://127.0.0.1:{PORT + 1}/v2/models/noop")["name"] == "noop"
        finally:
            process.send_signal(stop)
            process.send_signal(stop)
            said += process.stdout
    assert process.returncode == 0, said
    assert not any("RAY_AUTH_MODE" in line for line in said)
    assert said[-2:] == ["stopping …\n", "stopped\n"]
    alive = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in started if is_alive(pid)}
    assert alive == {}
