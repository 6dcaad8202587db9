"""The two doors through which a request reaches the app of this replica.

The fast door is a middleware that Ray Serve installs outermost in every HTTP server it starts, because the environment
names `middlewares` below (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). It answers before Ray's own work per request,
which costs several times what a small request costs us. Behind the fast door, plain infer requests do not even become
ASGI requests: uvicorn is made to use connections of ours (`api/http/connection.py`). The plain door is `@serve.ingress`,
always there: same app and behaviour, slower. What the fast door does not know it passes on.

The fast door also answers HAProxy's health checks. Ray answers them with 503 as soon as a replica is told to stop, when
HAProxy may not know the replicas that take over: in between it would refuse every request. A replica that drains still
takes requests, so it stays in rotation until HAProxy has a list without it (decision 16).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

from serving.api.http.app import ModelApp
from serving.api.http.asgi import send_bytes
from serving.api.http.connection import fast_path
from serving.api.http.uvicorn_parts import replace_default_protocol

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
HEALTHZ = "/-/healthz"  # where Ray's HAProxy configuration asks

logger = logging.getLogger("ray.serve")


class Entrance:
    """What this process serves, and through which door. One replica, one process, one entrance."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._prefix = ""
        self._takes_requests: Callable[[], bool] = bool
        self._loop: asyncio.AbstractEventLoop | None = None
        self.door = "plain"
        self.connection: Callable[..., asyncio.Protocol] | None = None

    def facts(self) -> dict[str, str]:
        """For the model's config: the door, and how plain infer requests come through it."""
        return {"door": self.door, "infer_way": "asgi" if self.connection is None else "short"}

    def register(self, prefix: str, app: App, takes_requests: Callable[[], bool]) -> None:
        """Called on the app's event loop, before Ray Serve starts this replica's HTTP server. takes_requests: whether
        HAProxy may send requests here."""
        self._app = app
        self._takes_requests = takes_requests
        self._prefix = prefix.rstrip("/")
        self._loop = asyncio.get_running_loop()

    def open(self) -> dict[str, Any] | str:
        """What `FastDoor` needs beside Ray's app, or why it stays closed."""
        if self._app is None:
            return "this process serves no app of ours"
        if asyncio.get_running_loop() is not self._loop:
            return "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"
        self.door = "fast"
        return {"own": self._app, "path": self._prefix, "takes_requests": self._takes_requests}


entrance = Entrance()


class FastDoor:
    """Sends requests for our app straight to it, answers HAProxy's health checks, and leaves the rest to Ray Serve."""

    def __init__(self, app: App, *, own: App, path: str, takes_requests: Callable[[], bool]) -> None:
        self._ray = app
        self._own = own
        self._path = path
        self._below = path + "/"
        self._takes_requests = takes_requests

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        app = self._ray
        if scope["type"] == "http":
            path: str = scope["path"]
            if path == HEALTHZ:
                app = self._answer_check
            elif (path.startswith(self._below) or path == self._path) and not path.startswith("/-/"):
                app = self._own
        await app(scope, receive, send)

    async def _answer_check(self, scope: Scope, receive: Any, send: Any) -> None:
        well = self._takes_requests()
        await send_bytes(send, 200 if well else 503, [], b"success" if well else b"takes no requests")


def connection(**uvicorn: Any) -> asyncio.Protocol:
    """One connection to this replica; uvicorn finds this function by its name, see `shorten`."""
    assert entrance.connection is not None
    return entrance.connection(**uvicorn)


def shorten(app: App) -> str:
    """Makes the HTTP server that this process is about to start use our connections. Returns in words how it went.

    Ray leaves uvicorn's choice of a protocol at "auto", so that name is what is given another meaning. Where uvicorn
    means another parser by it, all stays as it is, only slower.
    """
    if not isinstance(app, ModelApp):
        return "none are expected"
    if not replace_default_protocol(f"{__name__}:{connection.__name__}"):
        return "through uvicorn, whose choice of a protocol has changed"
    entrance.connection = fast_path(app)
    return "the short way"


def middlewares() -> list[Middleware]:
    """Called by Ray Serve in every process that starts an HTTP server, on that server's event loop."""
    opened = entrance.open()
    if isinstance(opened, str):
        logger.info("plain door: %s", opened)
        return []
    logger.info("fast door open for %s/; plain infer requests: %s", opened["path"], shorten(opened["own"]))
    return [Middleware(FastDoor, **opened)]
