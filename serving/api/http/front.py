"""The HTTP interface of the server itself: metadata, health, the list of models, pages, and errors for unknown paths.

Models usually run in other processes, to which the load balancer sends the requests for their paths; `Operations`
describes them. With `apps` one process can also serve models itself.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

from serving.api.admission.gate import ANYBODY, Action, Caller, Peer, http_peer
from serving.api.faults import (
    INTERNAL,
    CallFailed,
    Fault,
    escaped_path,
    fault_of_error,
    not_ready,
    unavailable_model,
    unknown_model,
    unknown_path,
    wrong_verb,
)
from serving.api.http.asgi import (
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
from serving.api.http.cors import Cors
from serving.api.http.features import PATH as FEATURES
from serving.api.http.features import answer_features
from serving.api.http.openapi.document import document
from serving.api.http.releases import RELEASE, answer_release
from serving.api.operations import Operations, Settings
from serving.api.pages import PAGES, Page
from serving.api.shared_memory.memory import Kind
from serving.names import FRONT_TAILS, MODELS, model_path

_log = logging.getLogger(__name__)
_MAX_BODY_BYTES = 64 * 1024
_MODEL = re.compile(rf"{MODELS}([^/]+)(?:/versions/([^/]+))?(?:/.*)?")
_ROUTE = re.compile(rf"{MODELS}([^/]+)/route")
_CONTROL = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")
_REGIONS = re.compile(r"/v2/(system|cuda)sharedmemory(?:/region/([^/]+))?/(status|register|unregister)")
_SETTINGS = ("/v2/trace/setting", "/v2/logging")


class Viewer(NamedTuple):
    """The caller that looks at a live page.

    sees: whether the model of this name exists for it. tenant: its own. sees_tenants: whether it is shown the numbers
    of all tenants, not only those of its own. may: whether it may do this.
    """

    sees: Callable[[str], bool]
    tenant: str
    sees_tenants: bool
    may: Callable[[Action], bool] = lambda action: False


LivePage = Callable[[str, Viewer], Awaitable[tuple[str, bytes]]]  # takes the query; returns content type and body
Change = Callable[[Mapping[str, Any], Peer], Awaitable[Settings]]  # makes the changes, returns the settings after them
_Answer = Callable[[Receive, Send, Caller], Awaitable[None]]
# What a caller needs to see a live page, by the beginning of its path.
_SHOWN = {
    "/debug/": Action.DEBUG,
    "/metrics": Action.METRICS,
    "/dashboard/": Action.PAGES,
    "/audit/": Action.AUDIT,
    "/releases/": Action.PAGES,
}


class FrontApp:
    """The ASGI application of the server.

    apps: the applications of the models in this process, by model name.
    pages: further paths for GET, below one of those in `_SHOWN`.
    cors: None if web pages of other origins may not send requests.
    """

    def __init__(
        self,
        operations: Operations,
        *,
        apps: Mapping[str, App] | None = None,
        pages: Mapping[str, LivePage] | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._cors = cors
        self._server = operations
        self._apps = dict(apps or {})
        self._pages = dict(pages or {})
        # By path: the verb, what a caller may have to be allowed (None: open to everybody), and the answer.
        self._operations: dict[str, tuple[str, Action | None, _Answer]] = {
            "/v2": ("GET", Action.READ, self._answer_server),
            "/v2/health/live": ("GET", None, self._answer_live),
            "/v2/health/ready": ("GET", None, self._answer_ready),
            "/v2/models/stats": ("GET", Action.READ, self._answer_statistics),
            "/v2/repository/index": ("POST", Action.READ, self._answer_index),
            "/openapi.json": ("GET", Action.READ, self._answer_openapi),
        }
        self._operations |= {path: ("GET", None, _page_answer(page)) for path, page in PAGES.items()}
        self._shown = {path: _action_of(path) for path in self._pages}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._cors is None:
            await self._serve(scope, receive, send)
        else:
            await self._cors.serve(self._serve, scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await answer_other_scope(scope, receive, send)
            return
        path = _own_path(scope["path"], scope.get("root_path", ""))
        operation = self._operations.get(path)
        try:
            if operation is not None:
                verb, action, answer = operation
                _check_verb(scope, verb)
                caller = ANYBODY if action is None else self._server.gate.check(http_peer(scope), action)
                await answer(receive, send, caller)
            elif path in self._pages:
                await self._answer_page(path, scope, send)
            else:
                await self._answer_elsewhere(path, scope, receive, send)
        except CallFailed as failed:
            await send_fault(send, failed.fault)
        except Exception as error:
            fault = fault_of_error(error)
            if fault is INTERNAL:
                _log.error("answering %s failed because of a bug in the server", path, exc_info=error)
            await send_fault(send, fault)

    async def _answer_page(self, path: str, scope: Scope, send: Send) -> None:
        _check_verb(scope, "GET")
        gate = self._server.gate
        peer = http_peer(scope)
        caller = gate.check(peer, self._shown[path])
        query = scope.get("query_string", b"").decode("latin-1")
        sees, may = partial(gate.sees, caller), partial(gate.allows, peer)
        viewer = Viewer(sees, caller.tenant, gate.sees_tenants(caller), may)
        content_type, body = await self._pages[path](query, viewer)
        await send_bytes(send, 200, [(b"content-type", content_type.encode())], body)

    async def _answer_elsewhere(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        gate, peer = self._server.gate, http_peer(scope)
        gate.check(peer, Action.READ)
        if match := RELEASE.fullmatch(path):
            await answer_release(self._server.releases, gate, match, scope, receive, send)
        elif match := _ROUTE.fullmatch(path):
            if scope["method"] == "POST":
                wanted = json_object(await _body(receive))
                await send_json(send, await self._server.change_route(match[1], wanted, peer))
            else:
                _check_verb(scope, "GET")
                await send_json(send, self._server.route(match[1], peer))
        elif match := _MODEL.fullmatch(path):
            if match[1] not in self._apps:
                gate.check(peer, Action.READ, match[1])
                if path.removeprefix(model_path(match[1])).split("/")[1:2] in ([tail] for tail in FRONT_TAILS):
                    raise CallFailed(unknown_path(path))  # HAProxy sends it here whether a replica runs or not
                raise CallFailed(await self._absent(match[1], match[2] or "", path, scope))
            await self._apps[match[1]](scope, receive, send)
        elif match := _REGIONS.fullmatch(path):
            await self._answer_about_regions(cast(Kind, match[1]), match[2] or "", match[3], scope, receive, send)
        elif match := _CONTROL.fullmatch(path):
            _check_verb(scope, "POST")
            given = json_object(await _body(receive)).get("parameters") or {}
            if not isinstance(given, dict):
                raise CallFailed(Fault(400, "parameters: must be an object"))
            change = self._server.load if match[2] == "load" else self._server.unload
            await change(match[1], given, peer)
            await send_json(send, {})
        elif path == FEATURES or path.startswith(f"{FEATURES}/"):
            await answer_features(self._server.features, gate, path, scope, receive, send)
        elif path in _SETTINGS:
            change_settings = self._server.log if path == "/v2/logging" else self._server.trace
            await answer_settings(change_settings, scope, receive, send)
        else:
            raise CallFailed(unknown_path(path))

    async def _answer_about_regions(
        self, kind: Kind, name: str, verb: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        _check_verb(scope, "GET" if verb == "status" else "POST")
        if verb == "status":
            await send_json(send, self._server.region_status(kind, name, http_peer(scope)))
        elif verb == "register":
            self._server.register_region(kind, name, json_object(await _body(receive)), http_peer(scope))
            await send_json(send, {})
        else:
            self._server.unregister_regions(kind, name, http_peer(scope))
            await send_json(send, {})

    async def _absent(self, name: str, version: str, path: str, scope: Scope) -> Fault:
        """Returns the fault for a model that this process does not serve. version: "" if the path names none.

        Requests for a known model arrive here while none of its replicas is reachable. If the path has percent escapes
        they always do, since load balancers compare paths without decoding them.
        """
        raw = (scope.get("raw_path") or b"").decode("latin-1")
        is_escaped = bool(raw) and model_path(name) not in raw
        for model in await self._server.models():
            if not model.is_called(name, version):
                continue
            if is_escaped:
                return escaped_path(raw, path)
            return not_ready(name, model.state) if model.wanted else unavailable_model(name)
        return unknown_model(name, version)

    async def _answer_server(self, receive: Receive, send: Send, caller: Caller) -> None:
        await send_json(send, self._server.server())

    async def _answer_live(self, receive: Receive, send: Send, caller: Caller) -> None:
        await send_json(send, {"live": True})

    async def _answer_ready(self, receive: Receive, send: Send, caller: Caller) -> None:
        if waiting := await self._server.waiting():
            # Everybody may ask, but models do not exist for everybody where callers need a credential.
            named = "some models" if self._server.gate.asks else ", ".join(waiting)
            await send_fault(send, Fault(503, f"not ready: {named}"))
        else:
            await send_json(send, {"ready": True})

    async def _answer_statistics(self, receive: Receive, send: Send, caller: Caller) -> None:
        await send_json(send, await self._server.statistics(caller))

    async def _answer_openapi(self, receive: Receive, send: Send, caller: Caller) -> None:
        server = self._server.server()
        models = await self._server.seen(caller)
        described = document(models, name=self._server.name, release=server["version"], extensions=server["extensions"])
        await send_json(send, described)

    async def _answer_index(self, receive: Receive, send: Send, caller: Caller) -> None:
        only_ready = json_object(await _body(receive)).get("ready") is True
        await send_json(send, await self._server.index(caller, only_ready=only_ready))


async def answer_settings(change: Change, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request that reads settings (GET) or changes them (POST). Raises CallFailed for other verbs."""
    peer = http_peer(scope)
    if scope["method"] == "POST":
        await send_json(send, await change(json_object(await _body(receive)), peer))
    else:
        _check_verb(scope, "GET")
        await send_json(send, await change({}, peer))


async def _body(receive: Receive) -> bytes:
    """Returns the whole body. Raises CallFailed (499) if the client disconnects before it is complete."""
    body = await read_body(receive, {}, _MAX_BODY_BYTES)
    if body is None:
        raise CallFailed(Fault(499, "the client has disconnected"))
    return body


def _check_verb(scope: Scope, verb: str) -> None:
    if scope["method"] != verb and (scope["method"], verb) != ("HEAD", "GET"):
        raise CallFailed(wrong_verb(scope["method"], verb))


def _action_of(path: str) -> Action:
    """Returns what a caller needs to see this live page. Raises StopIteration for a path without a rule."""
    return next(action for beginning, action in _SHOWN.items() if path.startswith(beginning))


def _page_answer(page: Page) -> _Answer:
    async def answer(receive: Receive, send: Send, caller: Caller) -> None:
        await send_bytes(send, 200, [*page.headers], page.body)

    return answer


def _own_path(path: str, root_path: str) -> str:
    """Returns the path without the prefix under which the application is mounted, and without a slash at the end."""
    if root_path and path.startswith(root_path + "/"):
        path = path.removeprefix(root_path)
    return path.rstrip("/") or "/"
