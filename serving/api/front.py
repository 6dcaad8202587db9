"""What belongs to no single model: server metadata, health, the list of models, and clean errors for the rest.

The models themselves are usually elsewhere (the load balancer sends their paths to them); `models` tells about them.
With `apps` one process can also answer for models of its own.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from hmac import compare_digest
from ipaddress import ip_address
from typing import Any

from serving.api.asgi import (
    App,
    Receive,
    Scope,
    Send,
    answer_other_scope,
    json_object,
    read_body,
    send_bytes,
    send_fault,
    send_json,
)
from serving.api.faults import INTERNAL, Fault, fault_of_error, left_out, not_ready, unknown_model, unknown_path
from serving.api.faults import wrong_verb as _wrong_verb
from serving.api.metadata import server_metadata, statistics
from serving.api.openapi import document
from serving.api.pages import PAGES, Page

_log = logging.getLogger(__name__)
_MAX_BODY_BYTES = 64 * 1024
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/.*)?")
# Parts of the protocol that are left out, by how their paths begin.
_LEFT_OUT = {
    "/v2/repository/models/": "loading and unloading at run time (models come and go by deployment)",
    "/v2/systemsharedmemory": "shared memory",
    "/v2/cudasharedmemory": "shared memory",
    "/v2/trace": "the trace extension",
    "/v2/logging": "the logging extension",
}

# Without shared memory no region is registered, and whoever unregisters what it never registered may go on:
# perf_analyzer unregisters both kinds on its way out.
_NO_REGIONS = re.compile(r"/v2/(?:system|cuda)sharedmemory(?:/region/[^/]+)?/(status|unregister)")

ModelList = list[dict[str, Any]]
LivePage = Callable[[str], Awaitable[tuple[str, bytes]]]  # takes the query, gives content type and body


class FrontApp:
    """`models` gives one dict per model: `name`, `version`, `state` (READY, LOADING or UNAVAILABLE), and optionally
    `reason`, `statistics` (an entry of `model_stats`) and `signature` (`openapi.signature`). `strict_readiness`: ready
    only while every model is. `pages`: further paths read with GET; those below /debug/ only from this
    machine, or with `admin_token` as a bearer token; "" for no token. `peer_header`: where the load balancer says who
    asks; "" without one."""

    def __init__(
        self,
        models: Callable[[], Awaitable[ModelList]],
        *,
        apps: Mapping[str, App] | None = None,
        pages: Mapping[str, LivePage] | None = None,
        peer_header: str = "",
        admin_token: str = "",
        name: str = "headway",
        strict_readiness: bool = True,
    ) -> None:
        self._models = models
        self._apps = dict(apps or {})
        self._pages = dict(pages or {})
        self._peer_header = peer_header.encode()
        self._admin = f"Bearer {admin_token}".encode() if admin_token else b""
        self._name = name
        self._strict_readiness = strict_readiness
        self._operations: dict[str, tuple[str, Callable[[Receive, Send], Awaitable[None]]]] = {
            "/v2": ("GET", self._tell_server),
            "/v2/health/live": ("GET", self._tell_live),
            "/v2/health/ready": ("GET", self._tell_ready),
            "/v2/models/stats": ("GET", self._tell_statistics),
            "/v2/repository/index": ("POST", self._tell_index),
            "/openapi.json": ("GET", self._tell_openapi),
        }
        self._operations |= {path: ("GET", _telling(page)) for path, page in PAGES.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_other_scope(scope, receive, send)
            return
        path = _own_path(scope["path"], scope.get("root_path", ""))
        verb, tell = self._operations.get(path, ("", None))
        try:
            if tell is None and path in self._pages:
                await self._tell_page(self._pages[path], scope, send)
            elif tell is None:
                await self._answer_elsewhere(path, scope, receive, send)
            elif scope["method"] != verb and (scope["method"], verb) != ("HEAD", "GET"):
                await send_fault(send, _wrong_verb(scope["method"], verb))
            else:
                await tell(receive, send)
        except Exception as error:
            fault = fault_of_error(error)
            if fault is INTERNAL:
                _log.error("answering %s failed by a bug of ours", path, exc_info=error)
            await send_fault(send, fault)

    async def _tell_page(self, page: LivePage, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await send_fault(send, _wrong_verb(scope["method"], "GET"))
            return
        if scope["path"].startswith("/debug/") and not self._may_debug(scope):
            await send_fault(send, Fault(403, "only from the machine itself, or with the admin token"))
            return
        content_type, body = await page(scope.get("query_string", b"").decode("latin-1"))
        await send_bytes(send, 200, [(b"content-type", content_type.encode())], body)

    def _may_debug(self, scope: Scope) -> bool:
        shown = dict(scope["headers"]).get(b"authorization", b"")
        return _is_local(scope, self._peer_header) or bool(self._admin and compare_digest(shown, self._admin))

    async def _answer_elsewhere(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        if found := _MODEL.fullmatch(path):
            app = self._apps.get(found[1])
            if app is not None:
                await app(scope, receive, send)
            else:
                await send_fault(send, await self._absent(found[1]))
            return
        if found := _NO_REGIONS.fullmatch(path):
            await self._tell_no_regions(found[1], scope["method"], send)
            return
        for beginning, what in _LEFT_OUT.items():
            if path.startswith(beginning):
                await send_fault(send, left_out(what))
                return
        await send_fault(send, unknown_path(path))

    async def _tell_no_regions(self, what: str, method: str, send: Send) -> None:
        verb = "GET" if what == "status" else "POST"
        if method != verb:
            await send_fault(send, _wrong_verb(method, verb))
        else:
            await send_json(send, [] if what == "status" else {})

    async def _absent(self, name: str) -> Fault:
        """A known model gets here while its own replicas are not reachable yet, or no longer."""
        for model in await self._models():
            if model["name"] == name:
                return not_ready(name, str(model.get("state", "UNAVAILABLE")).lower())
        return unknown_model(name)

    async def _tell_server(self, receive: Receive, send: Send) -> None:
        await send_json(send, server_metadata(self._name))

    async def _tell_live(self, receive: Receive, send: Send) -> None:
        await send_json(send, {"live": True})

    async def _tell_ready(self, receive: Receive, send: Send) -> None:
        waiting = [model["name"] for model in await self._models() if model["state"] != "READY"]
        if waiting and self._strict_readiness:
            await send_fault(send, Fault(503, f"not ready: {', '.join(waiting)}"))
        else:
            await send_json(send, {"ready": True})

    async def _tell_statistics(self, receive: Receive, send: Send) -> None:
        models = await self._models()
        await send_json(send, statistics(model["statistics"] for model in models if "statistics" in model))

    async def _tell_openapi(self, receive: Receive, send: Send) -> None:
        release = server_metadata()["version"]
        await send_json(send, document(await self._models(), name=self._name, release=release))

    async def _tell_index(self, receive: Receive, send: Send) -> None:
        body = await read_body(receive, {}, _MAX_BODY_BYTES)
        if body is None:
            return
        only_ready = json_object(body).get("ready") is True
        entries = [
            {key: str(model.get(key, "")) for key in ("name", "version", "state", "reason")}
            for model in await self._models()
            if not only_ready or model["state"] == "READY"
        ]
        await send_json(send, entries)


def _is_local(scope: Scope, peer_header: bytes) -> bool:
    """Whether the client sits on this machine. Behind a load balancer only that can tell, and silence is no."""
    if peer_header:
        peer = dict(scope["headers"]).get(peer_header, b"").decode("latin-1")
    else:
        peer = (scope.get("client") or ("",))[0]
    try:
        return ip_address(peer.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def _telling(page: Page) -> Callable[[Receive, Send], Awaitable[None]]:
    async def tell(receive: Receive, send: Send) -> None:
        await send_bytes(send, 200, [*page.headers], page.body)

    return tell


def _own_path(path: str, root_path: str) -> str:
    """The path from /v2 on, whatever it is mounted under."""
    if root_path and path.startswith(root_path + "/"):
        path = path.removeprefix(root_path)
    return path.rstrip("/") or "/"
