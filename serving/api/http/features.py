"""The routes of the feature store: `/v2/features`, `/v2/features/<view>` and `/v2/features/<view>/get`."""

import re

from serving.api.admission.gate import Action, Gate, http_peer
from serving.api.faults import CallFailed, Fault, left_out, unknown_path, wrong_verb
from serving.api.features import FEATURES_ARE_OFF, Features
from serving.api.http.asgi import Receive, Scope, Send, json_object, read_body, send_json

PATH = "/v2/features"
MAX_BODY_BYTES = 4 << 20  # of one request with rows
_ROUTE = re.compile(rf"{PATH}(?:/([^/]+)(/get)?)?")


async def answer_features(
    features: Features | None, gate: Gate, path: str, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answers a request whose path begins with PATH. Raises CallFailed, and BadMessage for a body that is no JSON."""
    match = _ROUTE.fullmatch(path)
    if match is None:
        raise CallFailed(unknown_path(path))
    if features is None:
        raise CallFailed(left_out(FEATURES_ARE_OFF))
    view, is_get = match[1], match[2] is not None
    verb = "GET" if view is None else "POST"
    if scope["method"] != verb and (scope["method"], verb) != ("HEAD", "GET"):
        raise CallFailed(wrong_verb(scope["method"], verb))
    peer = http_peer(scope)
    if view is None:
        gate.check(peer, Action.READ)
        await send_json(send, {"views": features.described()})
        return
    caller = gate.check(peer, Action.FEATURES_READ if is_get else Action.FEATURES_WRITE)
    tenant = caller.tenant if gate.asks else peer.header(features.tenant_header)
    if features.quota is not None:
        features.quota.take(tenant)  # before its body is read, which then costs nothing
    try:
        body = await read_body(receive, dict(scope["headers"]), MAX_BODY_BYTES)
        if body is None:
            raise CallFailed(Fault(499, "the client has disconnected"))
        answer = features.get if is_get else features.push
        await send_json(send, await answer(tenant, view, json_object(body)))
    finally:
        if features.quota is not None:
            features.quota.give_back(tenant)
