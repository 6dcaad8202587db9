"""The two doors through which a request reaches the app of this replica.

The fast door is a middleware that Ray Serve installs outermost in every HTTP server it starts, because the environment
names `middlewares` below (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). It answers before Ray's own work per request,
which costs several times what a small request costs us. The plain door is `@serve.ingress`, always there: same app and
behaviour, slower. What the fast door does not know it passes on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

logger = logging.getLogger("ray.serve")


class Entrance:
    """What this process serves, and through which door. One replica, one process, one entrance."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._prefix = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.door = "plain"

    def register(self, prefix: str, app: App) -> None:
        """Called on the app's event loop, before Ray Serve starts this replica's HTTP server."""
        self._app = app
        self._prefix = prefix.rstrip("/")
        self._loop = asyncio.get_running_loop()

    def open(self) -> tuple[str, str, App] | str:
        """(path itself, prefix of all below it, app) for the fast door, or why it stays closed."""
        if self._app is None:
            return "this process serves no app of ours"
        if asyncio.get_running_loop() is not self._loop:
            return "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"
        self.door = "fast"
        return self._prefix, self._prefix + "/", self._app


entrance = Entrance()


class FastDoor:
    """Sends requests for our app straight to it, all others to Ray Serve."""

    def __init__(self, app: App, *, own: App, path: str, below: str) -> None:
        self._ray = app
        self._own = own
        self._path = path
        self._below = below

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        app = self._ray
        if scope["type"] == "http":
            path: str = scope["path"]
            ours = path.startswith(self._below) or path == self._path
            if ours and not path.startswith("/-/"):  # Ray Serve's own health and routes
                app = self._own
        await app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """Called by Ray Serve in every process that starts an HTTP server, on that server's event loop."""
    opened = entrance.open()
    if isinstance(opened, str):
        logger.info("plain door: %s", opened)
        return []
    path, below, app = opened
    logger.info("fast door open for %s", below)
    return [Middleware(FastDoor, own=app, path=path, below=below)]
