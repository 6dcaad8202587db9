"""What no test may do unless its marks allow it, and what the product may not do on an event loop.

Python's own audit events tell of it, so nothing is patched but what has no such event: `ray.init`, `time.sleep` (it has
one since Python 3.13), and `Condition.wait`, on which `Event.wait`, `Queue.get` and `Future.result` rest. What C code
does by itself (uvloop, gRPC) is not seen.
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
RAYS_OWN = {"raylet", "gcs_server"}  # what a Ray that starts runs
ALLOWED_TO_BLOCK = {
    "serving/api/shared_memory/regions.py": "a small file and its lock, where regions are registered",
    "serving/cluster/replica/measuring.py": "opens its lock files before a replica serves; it awaits them",
    "serving/cluster/replica/debug.py": "opens the file for stacks before a replica serves: a signal allows no time",
    "serving/telemetry/trace.py": "OpenTelemetry asks its detectors in a pool, before a replica serves",
    "loadtest/samples.py": "reads the sample texts once, in a command that serves nobody",
}
# What the library does under the product: asyncio knows what it does, and a traceback that is logged reads the sources.
LIBRARY = ("/asyncio/", "/importlib/", "<frozen importlib", "/linecache.py")
IN_MEMORY = ("/proc/", "/sys/", "/dev/")  # files that no disk can delay


class NotInThisTest(BaseException):
    """No Exception: what a test asks must not take it for a failure of its own."""


def is_local(address: object) -> bool:
    """Whether a socket's address is of this machine's loopback, or none of the internet's."""
    if not isinstance(address, tuple):
        return True  # a Unix socket's path
    host = str(address[0])
    try:
        return host in ("", "localhost") or ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Guard:
    """Watches this process for as long as it runs; `may_start_ray` is told by each test's marks."""

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
        """Once the tests are imported: importing Ray takes a second, which tests without it need not wait."""
        if (ray := sys.modules.get("ray")) is not None:
            ray.init = self._allowed(ray.init)  # type: ignore[attr-defined]

    def blocked(self) -> list[str]:
        """Where the product blocked an event loop since this was asked last."""
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
            self._blocked.append(f"{what} on an event loop: await it, or do it beside the loop\n{stack}")


def _product_frame(frame: FrameType | None) -> FrameType | None:
    """The caller, if it is the product and may not block."""
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
    """Its threads go on connecting while tests without the mark run in the same file, or until its fixture ends."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@contextmanager
def ray_allowed(guard: Guard, allowed: bool) -> Iterator[None]:
    guard.may_start_ray, before = allowed, guard.may_start_ray
    try:
        yield
    finally:
        guard.may_start_ray = before
