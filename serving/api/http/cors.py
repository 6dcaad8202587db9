"""Lets web pages of the origins that a setting names send requests to the server (CORS).

Their requests take the general path, since the fast path sends prepared headers; its speed matters only for many small
requests, which pages do not send.
"""

from collections.abc import Collection

from serving.api.http.asgi import App, Receive, Scope, Send

EXPOSED = (b"inference-header-content-length", b"x-request-id", b"server-timing", b"retry-after")
KEPT_S = 600  # how long a browser may cache the answer to a preflight


class Cors:
    """Adds the headers of CORS to answers. origins: as browsers send them (`https://app.example`); `*` for all."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._everybody = b"*" in self._origins

    async def serve(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers preflights itself, and adds the headers of CORS to all answers of the app, errors included."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        allowing = self._allowing_headers(headers.get(b"origin", b""))
        if scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers:
            await self._answer_preflight(allowing, headers.get(b"access-control-request-headers", b""), send)
            return

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *allowing]}
            await send(message)

        await app(scope, receive, send_with_headers)

    def _allowing_headers(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """Returns the headers of CORS for an answer to a page of this origin.

        origin: "" if no page of another origin sends the request. Caches need the header Vary even then."""
        varies = [] if self._everybody else [(b"vary", b"origin")]
        if not origin or not (self._everybody or origin in self._origins):
            return varies
        allowed = b"*" if self._everybody else origin
        exposed = (b"access-control-expose-headers", b", ".join(EXPOSED))
        return [*varies, (b"access-control-allow-origin", allowed), exposed]

    async def _answer_preflight(self, allowing: list[tuple[bytes, bytes]], wanted: bytes, send: Send) -> None:
        """Answers a preflight. An allowed page may send any header, since no header (tenant, trace) grants rights."""
        allowed = any(name == b"access-control-allow-origin" for name, _ in allowing)
        more = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", b"%d" % KEPT_S),
            (b"vary", b"access-control-request-headers"),
        ]
        headers = [*allowing, *(more if allowed else []), (b"content-length", b"0")]
        # 204 has no body, so it must not have a content-length.
        await send(
            {
                "type": "http.response.start",
                "status": 204 if allowed else 403,
                "headers": headers[:-1] if allowed else headers,
            }
        )
        await send({"type": "http.response.body", "body": b""})
