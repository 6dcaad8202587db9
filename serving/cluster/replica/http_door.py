"""The two doors for HTTP requests into this replica.

The fast door is a middleware that Ray Serve installs as the outermost one in every HTTP server it starts, because the
environment names `middlewares` below (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH). It answers before Ray's own work per
request, which costs several times as much as a small request costs us. Behind the fast door, plain infer requests do
not become ASGI requests: uvicorn uses our connections (`api/http/connection.py`). The plain door is `@serve.ingress`
and always open: same app and behaviour, but slower. The fast door passes on requests that are not for our app.

The fast door also answers HAProxy's health checks. Ray would answer 503 as soon as a replica is asked to stop. HAProxy
may not know the new replicas by then, and would reject every request. A draining replica still takes requests, so it
stays in rotation until HAProxy has a list without it (decision 16).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

from serving.api.admission.kept_out import HEADER as KEPT_OUT
from serving.api.admission.kept_out import KeptOut
from serving.api.http.app import ModelApp
from serving.api.http.asgi import send_bytes
from serving.api.http.connection import fast_path
from serving.api.http.uvicorn_parts import replace_default_protocol, replace_main_loop

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
HEALTHZ = "/-/healthz"  # where Ray's HAProxy configuration asks

Count = Callable[[int], None]

logger = logging.getLogger("ray.serve")


def keep_no_count(count: int) -> None:
    """Ignores requests that HAProxy refused: in place of this process it refuses none."""


class Entrance:
    """The app of this process and its open doors. A process holds one replica, so it has one entrance."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._prefix = ""
        self._takes_requests: Callable[[], bool] = bool
        self._kept_out: Count = keep_no_count
        self._loop: asyncio.AbstractEventLoop | None = None
        self.door = "plain"
        self.connection: Callable[..., asyncio.Protocol] | None = None

    def facts(self) -> dict[str, str]:
        """Returns the entries for the model's config: the door, and the path of plain infer requests behind it."""
        return {"door": self.door, "infer_way": "asgi" if self.connection is None else "short"}

    def register(
        self, prefix: str, app: App, takes_requests: Callable[[], bool], kept_out: Count = keep_no_count
    ) -> None:
        """Called on the app's event loop, before Ray Serve starts this replica's HTTP server.

        takes_requests: returns whether HAProxy may send requests here. kept_out: counts requests that HAProxy refused.
        """
        self._kept_out = kept_out
        self._app = app
        self._takes_requests = takes_requests
        self._prefix = prefix.rstrip("/")
        self._loop = asyncio.get_running_loop()

    def open(self) -> dict[str, Any] | str:
        """Returns the arguments of `FastDoor` besides Ray's app, or the reason why the fast door stays closed."""
        if self._app is None:
            return "this process serves no app of ours"
        if asyncio.get_running_loop() is not self._loop:
            return "user code runs on an event loop of its own (RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD is not 0)"
        self.door = "fast"
        return {
            "own": self._app,
            "path": self._prefix,
            "takes_requests": self._takes_requests,
            "kept_out": self._kept_out,
        }


entrance = Entrance()


class FastDoor:
    """Sends requests for our app straight to it, answers HAProxy's health checks, and leaves the rest to Ray Serve."""

    def __init__(self, app: App, *, own: App, path: str, takes_requests: Callable[[], bool], kept_out: Count) -> None:
        self._ray = app
        self._own = own
        self._path = path
        self._below = path + "/"
        self._takes_requests = takes_requests
        self._kept_out = kept_out
        self._heard = KeptOut()

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
        if count := self._heard.heard(dict(scope["headers"]).get(KEPT_OUT, b"")):
            self._kept_out(count)
        well = self._takes_requests()
        await send_bytes(send, 200 if well else 503, [], b"success" if well else b"takes no requests")


def connection(**uvicorn: Any) -> asyncio.Protocol:
    """Creates the protocol of one connection. uvicorn finds this function by its name, see `shorten`."""
    assert entrance.connection is not None
    return entrance.connection(**uvicorn)


def shorten(app: App) -> str:
    """Makes the HTTP server that this process is about to start use our connections. Returns the result for the log.

    Ray leaves uvicorn's protocol at "auto", so that name is bound to our protocol. If uvicorn maps it to another parser
    than expected, nothing is changed, and requests are only slower.
    """
    if not isinstance(app, ModelApp):
        return "none are expected"
    if not replace_default_protocol(f"{__name__}:{connection.__name__}"):
        return "through uvicorn, whose choice of a protocol has changed"
    entrance.connection = fast_path(app)
    return "the short way"


def middlewares() -> list[Middleware]:
    """Called by Ray Serve in every process that starts an HTTP server, on that server's event loop."""
    if not replace_main_loop():
        logger.info("uvicorn's main loop has changed: it ticks as often as it wants")
    opened = entrance.open()
    if isinstance(opened, str):
        logger.info("plain door: %s", opened)
        return []
    logger.info("fast door open for %s/; plain infer requests: %s", opened["path"], shorten(opened["own"]))
    return [Middleware(FastDoor, **opened)]
