"""The functions that both ASGI applications share: read bodies, send answers, handle scopes other than HTTP."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from io import BytesIO
from typing import Any

import orjson

from serving.api.admission.pace import TOO_SLOW_AND_LAST, patience_s
from serving.api.admission.room import COUNTED_BYTES, Held
from serving.api.faults import CallFailed, Fault
from serving.protocol.errors import BadMessage, TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
HeaderMap = Mapping[bytes, bytes]
JSON_CONTENT = (b"content-type", b"application/json")
CLOSE = (b"connection", b"close")


class BodyTooLarge(TooLarge):
    """The body of a request is larger than allowed.

    is_endless: the client did not announce the length of the body, so the connection must be closed.
    """

    def __init__(self, max_bytes: int, *, is_endless: bool = False) -> None:
        super().__init__(f"the request body is larger than {max_bytes} bytes, the limit of this server")
        self.is_endless = is_endless


async def read_body(receive: Receive, headers: HeaderMap, max_bytes: int, held: Held | None = None) -> bytes | None:
    """Returns the whole body; None if the client disconnected before it was complete.

    Raises BodyTooLarge as soon as the excess is known, and CallFailed if `held` has no room or the body arrives too
    slowly.
    """
    if held is not None:
        _arrive(held)
    body = await _read_body(receive, headers, max_bytes, held)
    if held is not None:
        held.arrived()
    return body


def _arrive(held: Held) -> None:
    try:
        held.arrive()
    except CallFailed as failed:
        # The body would go on arriving on a connection that stays open.
        raise CallFailed(replace(failed.fault, headers=(*failed.fault.headers, CLOSE))) from None


async def _read_body(receive: Receive, headers: HeaderMap, max_bytes: int, held: Held | None) -> bytes | None:
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced[:18]) > max_bytes:
        # Nothing has been read yet: a client that sent "Expect: 100-continue" does not send the body, and a body that
        # is sent anyway is discarded by the server piece by piece.
        raise BodyTooLarge(max_bytes)
    began_s = asyncio.get_running_loop().time()
    # A timer here would double the cost of reading. If the length is announced, the connection checks the pace.
    message = await receive() if announced else await _next_part(receive, began_s, 0)
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > max_bytes:
            raise BodyTooLarge(max_bytes)
        if held is not None and len(body) > COUNTED_BYTES:
            held.take(len(body))
        return body
    size = len(body)
    if held is not None:
        held.take(size)
    whole = BytesIO()  # one join of all parts at the end would block the event loop for long
    whole.write(body)
    while True:
        if size > max_bytes:
            raise BodyTooLarge(max_bytes, is_endless=not announced)
        message = await _next_part(receive, began_s, size)
        if message["type"] != "http.request":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if held is not None:
            held.take(len(part))
        whole.write(part)
        if not message.get("more_body", False):
            if size > max_bytes:
                raise BodyTooLarge(max_bytes)
            return whole.getvalue()


async def _next_part(receive: Receive, began_s: float, received: int) -> Message:
    try:
        async with asyncio.timeout_at(began_s + patience_s(received)):
            return await receive()
    except TimeoutError:
        raise CallFailed(TOO_SLOW_AND_LAST) from None


async def send_json(send: Send, value: object, status: int = 200) -> None:
    await send_bytes(send, status, [JSON_CONTENT], orjson.dumps(value))


async def send_fault(send: Send, fault: Fault) -> None:
    await send_bytes(send, fault.status, [JSON_CONTENT, *fault.headers], fault.body)


async def send_bytes(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_other_scope(scope: Scope, receive: Receive, send: Send) -> None:
    """Acknowledges lifespan events and refuses websockets."""
    if scope["type"] == "lifespan":
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})


def text_header(headers: HeaderMap, name: bytes) -> str:
    """Returns the value of a header as text; "" if the header was not sent or `name` is empty."""
    return headers.get(name, b"").decode("latin-1")


def json_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a body; an empty body counts as an empty object. Raises BadMessage.

    NaN, Infinity and -Infinity are accepted as numbers, as Python's json writes them."""
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise BadMessage(f"not valid JSON: {error}") from None
        try:
            value = json.loads(body)
            if b"\\u" in body:
                json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair, as orjson does
        except (ValueError, RecursionError):
            raise BadMessage(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadMessage("not a JSON object")
    return value
