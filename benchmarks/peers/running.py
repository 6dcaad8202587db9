"""One server under test: started in a session of its own, awaited until it answers, ended with all it started."""

import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.peers.accounting import Process, family, processes

TERMINATE_S = 45.0  # Ray Serve and Headway drain before they go
KILL_S = 10.0
_POLL_S = 0.2


class DidNotStart(Exception):
    """The server ended or stayed silent; the message holds the end of what it wrote."""


class Running:
    """A started server and everything it starts later."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        self._known: frozenset[tuple[int, int]] = frozenset()

    def members(self) -> dict[int, Process]:
        found = family(processes(), self._process.pid, self._known)
        # Remembered while their parents still lead to them: later a process that left the session could not be told.
        self._known |= {process.identity for process in found.values()}
        return found

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
        """Ends the whole family; returns the labels of those that had to be killed."""
        self.members()
        # Only the root is asked: Ray's own processes share its group, and its shutdown needs them.
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
            self._process.poll()  # takes the root's own exit status, or it would stay as a zombie
            if not self.members():
                return True
            time.sleep(_POLL_S)
        return False


@contextlib.contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, *, niceness: int = 0
) -> Iterator[Running]:
    """Starts the server and, however the block is left, stops it and everything it started.

    niceness: so that a load generator on the same cores can keep its schedule, as if it had a machine of its own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            ["nice", "-n", str(niceness), *command],
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


def post(url: str, body: bytes, headers: Mapping[str, str], limit_s: float = 5.0) -> tuple[int, bytes]:
    """One request on a connection of its own: (status, body), or (0, b"") where nobody answers."""
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
