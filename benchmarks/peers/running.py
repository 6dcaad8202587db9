"""Runs one server under test: starts it in its own session, waits until it answers, and ends all its processes."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.accounting import Process, family, processes

TERMINATE_S = 45.0  # Ray Serve and Headway drain before they end
KILL_S = 10.0
_POLL_S = 0.2


class DidNotStart(Exception):
    """The server ended or did not answer in time (the message contains the end of its output), or its port is taken."""


class Running:
    """A started server and all processes that it starts."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self._known: frozenset[tuple[int, int]] = frozenset()

    def members(self) -> dict[int, Process]:
        members = family(processes(), self._process.pid, self._known)
        # Recorded while their parents exist: later, a process that has left the session could not be found.
        self._known |= {process.identity for process in members.values()}
        return members

    def log_tail(self, characters: int = 1500) -> str:
        return self._log.read_text(errors="replace")[-characters:]

    def wait_until(self, answers: Callable[[], bool], limit_s: float) -> None:
        give_up_at = time.monotonic() + limit_s
        while not answers():
            if self._process.poll() is not None:
                raise DidNotStart(f"ended with code {self._process.returncode}\n{self.log_tail()}")
            if time.monotonic() > give_up_at:
                raise DidNotStart(f"did not answer within {limit_s:.0f} s\n{self.log_tail()}")
            time.sleep(_POLL_S)

    def stop(self, terminate_s: float = TERMINATE_S) -> list[str]:
        """Ends all processes; returns the labels of those that had to be killed."""
        self.members()
        # Only the root is terminated: Ray's processes are in its group, and its shutdown needs them.
        self._process.terminate()
        if not self._gone_within(terminate_s):
            left = self.members()
            for group in {process.group for process in left.values()}:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            self._gone_within(KILL_S)
            return sorted(process.label for process in left.values())
        return []

    def _gone_within(self, limit_s: float) -> bool:
        give_up_at = time.monotonic() + limit_s
        while time.monotonic() < give_up_at:
            self._process.poll()  # reads the root's exit status, so that it does not stay a zombie
            if not self.members():
                return True
            time.sleep(_POLL_S)
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, *, port: int | None = None
) -> Iterator[Running]:
    """Starts the server, and stops it and all its processes when the block is left.

    port: where it will listen. Raises DidNotStart if another server does already, which would be measured in its place;
        None for servers that refuse to start then.
    """
    if port is not None and _is_taken(port):
        raise DidNotStart(f"another server answers on port {port}")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Running(process, log)
    try:
        yield server
    finally:
        server.stop()


def _is_taken(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def post(url: str, body: bytes, headers: Mapping[str, str], limit_s: float = 5.0) -> tuple[int, bytes]:
    """Sends one request on its own connection. Returns (status, body), or (0, b"") without an answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=limit_s)
    try:
        connection.request("POST", parts.path, body=body, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
