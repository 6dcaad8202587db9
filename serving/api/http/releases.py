"""The routes of releases: `/v2/models/<model>/release`, and below it `hold`, `resume`, `abort`, `approve`, `revoke`."""

import re

from serving.api.admission.gate import Action, Caller, Gate, http_peer
from serving.api.faults import CallFailed, Fault, left_out, wrong_verb
from serving.api.http.asgi import Receive, Scope, Send, json_object, read_body, send_json
from serving.api.releases import RELEASES_ARE_OFF, Releases
from serving.names import MODELS

RELEASE = re.compile(rf"{MODELS}([^/]+)/release(?:/(hold|resume|abort|approve|revoke))?")
CONSENT = ("approve", "revoke")
MAX_BODY_BYTES = 64 << 10
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


async def answer_release(
    releases: Releases | None, gate: Gate, match: re.Match[str], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answers a request whose path matches RELEASE. Raises CallFailed, and BadMessage for a body that is none."""
    model, what = match[1], match[2] or ""
    peer, verb = http_peer(scope), scope["method"]
    if verb != "POST" and (what or verb not in ("GET", "HEAD")):
        raise CallFailed(wrong_verb(verb, "POST" if what else "GET"))
    action = Action.APPROVE if what in CONSENT else Action.RELEASE if verb == "POST" else Action.READ
    caller = gate.check(peer, action, model)
    if releases is None:
        raise CallFailed(left_out(RELEASES_ARE_OFF))
    if verb != "POST":
        await send_json(send, await releases.told(model))
        return
    data = await read_body(receive, {}, MAX_BODY_BYTES)
    if data is None:
        raise CallFailed(Fault(499, "the client has disconnected"))
    body = dict(json_object(data))
    by = _who(gate, caller, body.pop("by", None))
    if not what:
        await send_json(send, await releases.start(model, body, by))
    elif what in CONSENT:
        await send_json(send, await releases.consent(model, what, body, by))
    else:
        await send_json(send, await releases.change(model, what, body, by))


def _who(gate: Gate, caller: Caller, named: object) -> str:
    """Returns who asks: the holder of the key. Only where nobody needs one, callers name themselves."""
    if gate.asks:
        return f"key:{caller.key_id}"
    if isinstance(named, str) and _NAME.fullmatch(named):
        return f"user:{named.removeprefix('user:')}"
    return "somebody on the server's machine"
