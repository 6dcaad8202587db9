"""Runs Prometheus, promtool and Alertmanager, if this machine has them: on the path, or as `make tools` unpacks
them."""

import http.client
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.patience import eventually

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".headway" / "tools" / "usr" / "bin"
PROMETHEUS = ROOT / "deploy" / "prometheus"


def tool(*names: str) -> str:
    """Returns the path of the first of these commands that exists; skips the test with advice if there is none."""
    for name in names:
        found = shutil.which(name, path=f"{TOOLS}{os.pathsep}{os.environ['PATH']}")
        if found:
            return found
    pytest.skip(f"no {names[0]} on this machine: `make tools` fetches it from Debian")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


@contextmanager
def running(command: list[str], ready: str, log: Path) -> Iterator[None]:
    """Runs the command as a child process, from when `ready` answers until the end of the block."""
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent) as process:
        try:
            eventually(lambda: process.poll() is not None or answers(ready), beside=log.read_text)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


class Stub:
    """A server on the loopback: answers GET with `page`, and keeps each POST as (path, body)."""

    def __init__(self, page: Callable[[str], bytes] = lambda path: b"") -> None:
        self.posted: list[tuple[str, bytes]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(page(self.path))

            def do_POST(self) -> None:
                stub.posted.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
                self._answer(b'{"status": "success"}', 202 if "enqueue" in self.path else 200)

            def _answer(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> "Stub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
