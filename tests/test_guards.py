"""Tests that each guard of `tests/guards.py` fires where it should, and only there."""

import asyncio
import os
import queue
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import yaml

from tests.conftest import GUARD
from tests.guards import ALLOWED_TO_BLOCK, ROOT, NotInThisTest, is_local, ray_allowed

ELSEWHERE = ("192.0.2.1", 9)  # an address reserved for documentation: no machine has it


def as_product(file: str, text: str, **names: object) -> Callable[[], object]:
    """Returns a function that evaluates `text`, and that looks to the guards like code in this file of the product."""
    found: dict[str, Callable[[], object]] = {}
    exec(compile(f"def run():\n    return {text}", str(ROOT / file), "exec"), dict(names), found)
    return found["run"]


def blocked_by(work: Callable[[], object]) -> list[str]:
    async def on_the_loop() -> None:
        work()

    asyncio.run(on_the_loop())
    return [line.partition(" on an event loop")[0] for line in GUARD.blocked()]


def test_a_connection_beyond_loopback_is_refused_before_a_packet_leaves() -> None:
    with socket.socket() as sock, pytest.raises(NotInThisTest, match="only loopback"):
        sock.connect(ELSEWHERE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(NotInThisTest, match="only loopback"):
        sock.sendto(b"", ELSEWHERE)


def test_a_connection_of_asyncio_beyond_loopback_is_refused() -> None:
    async def connect() -> None:
        await asyncio.open_connection(*ELSEWHERE)

    with pytest.raises(NotInThisTest, match="only loopback"):
        asyncio.run(connect())


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 1), ("127.3.2.1", 1), ("::1", 1, 0, 0), ("localhost", 1), ("", 1), "/tmp/socket", b"\0x"]
)
def test_an_address_of_this_machine_is_local(address: object) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 1), ("10.0.0.1", 1), ("0.0.0.1", 1), ("fe80::1%eth0", 1, 0, 2), ("example.org", 80)]
)
def test_any_other_address_is_not_local(address: object) -> None:
    assert not is_local(address)


def test_a_test_without_the_mark_cannot_start_ray() -> None:
    ray = pytest.importorskip("ray")
    GUARD.watch_ray()
    with pytest.raises(NotInThisTest, match=r"ray\.init: only a test marked `ray` or `chaos`"):
        ray.init()


@pytest.mark.parametrize("program", ["raylet", "/opt/ray/core/src/gcs_server"])
def test_the_programs_of_ray_do_not_start_either(program: str) -> None:
    with pytest.raises(NotInThisTest, match="may start Ray"):
        subprocess.Popen([program])


def test_a_test_with_the_mark_may_reach_further() -> None:
    with ray_allowed(GUARD, True), socket.socket() as sock:
        sys.audit("socket.connect", sock, ELSEWHERE)
        sys.audit("subprocess.Popen", "raylet", ["raylet"], None, None)


@pytest.mark.parametrize(
    ("what", "text", "names"),
    [
        ("time.sleep", "time.sleep(0)", {"time": time}),
        ("subprocess.Popen", "subprocess.run(['true'])", {"subprocess": subprocess}),
        ("os.system", "os.system('true')", {"os": os}),
        ("socket.getaddrinfo", "socket.getaddrinfo('127.0.0.1', 1)", {"socket": socket}),
        (
            "socket.connect",
            "(lambda s: (s.connect_ex(('127.0.0.1', 1)), s.close()))(socket.socket())",
            {"socket": socket},
        ),
        ("urllib.Request", "opener.open('http://127.0.0.1:1')", {"opener": urllib.request.OpenerDirector()}),
        ("threading.Condition.wait", "event.wait(0.001)", {"event": threading.Event()}),
    ],
)
def test_the_product_may_not_block_an_event_loop(what: str, text: str, names: dict[str, object]) -> None:
    assert what in blocked_by(as_product("serving/newcomer.py", text, **names))


def test_the_product_may_not_wait_for_another_thread_on_an_event_loop() -> None:
    done: Future[int] = Future()
    lines: queue.Queue[int] = queue.Queue()
    threading.Timer(0.01, lambda: (done.set_result(1), lines.put(1))).start()
    assert blocked_by(as_product("models/newcomer.py", "(done.result(), lines.get())", done=done, lines=lines))


def test_the_product_may_not_open_files_on_an_event_loop_unless_they_lie_in_memory() -> None:
    assert blocked_by(as_product("serving/newcomer.py", f"open({__file__!r}).close()")) == [f"open {__file__}"]
    assert not blocked_by(as_product("serving/newcomer.py", "open('/proc/self/stat').close()"))


def test_the_product_may_block_outside_an_event_loop() -> None:
    as_product("serving/newcomer.py", "time.sleep(0)", time=time)()
    assert not GUARD.blocked()
    assert not blocked_by(
        lambda: threading.Thread(target=as_product("serving/new.py", "time.sleep(0)", time=time)).start()
    )


def test_a_test_itself_may_block_a_loop() -> None:
    assert not blocked_by(lambda: time.sleep(0))


def test_asyncio_may_block_when_the_product_calls_it() -> None:
    assert not blocked_by(
        as_product("serving/newcomer.py", "threading.Thread(target=int).start()", threading=threading)
    )


@pytest.mark.parametrize("file", ALLOWED_TO_BLOCK)
def test_every_permission_to_block_belongs_to_an_existing_file(file: str) -> None:
    assert Path(ROOT / file).is_file()
    assert not blocked_by(as_product(file, f"open({__file__!r}).close()"))


def test_a_test_in_which_the_product_blocks_a_loop_fails(tmp_path: Path) -> None:
    """Runs a pytest of its own with the real hooks."""
    file = str(ROOT / "serving" / "newcomer.py")
    (tmp_path / "test_it.py").write_text(f"""
import asyncio, time

def test_blocks():
    names = {{"time": time}}
    exec(compile("async def run():\\n    time.sleep(0)", {file!r}, "exec"), names)
    asyncio.run(names["run"]())

def test_blocks_not():
    asyncio.run(asyncio.sleep(0))
""")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "ERROR at teardown of test_blocks" in done.stdout
    assert "time.sleep on an event loop: await it, or run it in a thread" in done.stdout
    assert "2 passed, 1 error" in done.stdout


def test_a_commit_is_checked_by_what_ci_runs() -> None:
    """Checks that the commit hook runs `make check` and nothing else, so that the checks are listed only once."""
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == ["make check"]
    assert "make check" in (ROOT / ".ci" / "run").read_text().splitlines()
