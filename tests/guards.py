"""Guards that fail a test if it uses Ray or the network without a mark, or if the product blocks an event loop.

They listen to Python's audit events. Only functions without such an event are patched: `ray.init`, `time.sleep` (it has
one since Python 3.13), and `Condition.wait`, which `Event.wait`, `Queue.get` and `Future.result` use. Calls inside C
code (uvloop, gRPC) are not seen.
"""

import asyncio
import ipaddress
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, SupportsIndex

ROOT = Path(__file__).parents[1]
PRODUCT = tuple(f"{ROOT / name}/" for name in ("serving", "models", "loadtest"))
BLOCKING = {
    "subprocess.Popen",
    "os.system",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "urllib.Request",
}
RAYS_OWN = {"raylet", "gcs_server"}  # programs that Ray runs when it starts
ALLOWED_TO_BLOCK = {
    "serving/api/shared_memory/regions.py": "a small file and its lock, where regions are registered",
    "serving/cluster/replica/measuring.py": "opens its lock files before a replica serves; it awaits them",
    "serving/cluster/replica/debug.py": "opens the file for stacks before a replica serves: a signal allows no time",
    "serving/telemetry/trace.py": "OpenTelemetry runs its detectors in a pool, before a replica serves",
    "loadtest/samples.py": "reads the sample texts once, in a command that is a client",
}
# Library code that the product calls may block: asyncio uses it safely, and logging a traceback reads the sources.
LIBRARY = ("/asyncio/", "/importlib/", "<frozen importlib", "/linecache.py")
IN_MEMORY = ("/proc/", "/sys/", "/dev/")  # files that no disk can delay


class NotInThisTest(BaseException):
    """Raised by a guard. Not an Exception, so that the code under test does not catch it as a failure of its own."""


def is_local(address: object) -> bool:
    """Returns whether a socket's address is on loopback or is not an internet address (a Unix socket, say)."""
    if not isinstance(address, tuple):
        return True  # a Unix socket's path
    host = str(address[0])
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Guard:
    """Watches this process until it ends. `may_start_ray` is set by the marks of the current test."""

    def __init__(self) -> None:
        self.may_start_ray = False
        self._blocked: list[str] = []

    def watch(self) -> None:
        sys.addaudithook(self._audit)
        wait = threading.Condition.wait

        @wraps(wait)
        def watched(condition: threading.Condition, timeout: float | None = None) -> bool:
            if timeout != 0:
                self._blocks("threading.Condition.wait")
            return wait(condition, timeout)

        sleep = time.sleep

        @wraps(sleep)
        def watched_sleep(seconds: float | SupportsIndex, /) -> None:
            self._blocks("time.sleep")
            sleep(seconds)

        time.sleep = watched_sleep
        threading.Condition.wait = watched  # type: ignore[method-assign, assignment]  # the same signature, wrapped

    def watch_ray(self) -> None:
        """Guards `ray.init` if Ray is imported. Call it after the tests are imported: it does not import Ray itself,
        which takes a second."""
        if (ray := sys.modules.get("ray")) is not None:
            ray.init = self._allowed(ray.init)  # type: ignore[attr-defined]

    def blocked(self) -> list[str]:
        """Returns where the product blocked an event loop since the last call."""
        found, self._blocked = self._blocked, []
        return found

    def _allowed(self, init: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(init)
        def guarded(*arguments: Any, **named: Any) -> Any:
            self._needs_ray("ray.init")
            return init(*arguments, **named)

        return guarded

    def _needs_ray(self, what: str) -> None:
        if not self.may_start_ray:
            raise NotInThisTest(f"{what}: only a test marked `ray` or `chaos` may start Ray")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            sock, address = arguments
            if not is_local(address) and not self.may_start_ray and not _ray_runs():
                raise NotInThisTest(f"{event} {address}: only loopback; Ray's own address is for tests marked `ray`")
            if event == "socket.connect" and sock.gettimeout() != 0:
                self._blocks(event)
        elif event == "subprocess.Popen":
            if Path(str(arguments[0])).name in RAYS_OWN:
                self._needs_ray(str(arguments[0]))
            self._blocks(event)
        elif event in BLOCKING:
            self._blocks(event)
        elif event == "open" and isinstance(arguments[0], str) and not arguments[0].startswith(IN_MEMORY):
            self._blocks(f"open {arguments[0]}")

    def _blocks(self, what: str) -> None:
        if asyncio._get_running_loop() is not None and (frame := _product_frame(sys._getframe(2))) is not None:
            stack = "".join(traceback.format_stack(frame, limit=4))
            self._blocked.append(f"{what} on an event loop: await it, or run it in a thread\n{stack}")


def _product_frame(frame: FrameType | None) -> FrameType | None:
    """Returns the innermost frame of the product that leads to this call; None if there is none or it may block."""
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PRODUCT):
            return None if path.removeprefix(f"{ROOT}/") in ALLOWED_TO_BLOCK else frame
        if path.startswith(str(ROOT / "tests")) or any(part in path for part in LIBRARY):
            return None
        if path == threading.__file__ and frame.f_code.co_name == "start":
            return None
        frame = frame.f_back
    return None


def _ray_runs() -> bool:
    """Returns whether Ray runs. Its threads continue to connect until its fixture ends, also during tests without the
    mark."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def ray_allowed(guard: Guard, allowed: bool) -> Iterator[None]:
    guard.may_start_ray, before = allowed, guard.may_start_ray
    try:
        yield
    finally:
        guard.may_start_ray = before
