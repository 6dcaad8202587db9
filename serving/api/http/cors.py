"""Lets web pages of other origins ask the server (CORS), where a setting names them. Their requests take the general
way: the short way answers with heads made beforehand, and a page is never the many small requests it is for.
"""

from collections.abc import Collection

from serving.api.http.asgi import App, Receive, Scope, Send

EXPOSED = (b"inference-header-content-length", b"x-request-id", b"server-timing", b"retry-after")
KEPT_S = 600  # how long a browser may remember what a preflight was told


class Cors:
    """origins: as browsers send them (`https://app.example`); `*` for all."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)
        self._everybody = b"*" in self._origins

    async def serve(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a preflight, and has the app answer everything else, errors too."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        told = self._allowing_headers(headers.get(b"origin", b""))
        if scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers:
            await self._answer_preflight(told, headers.get(b"access-control-request-headers", b""), send)
            return

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *told]}
            await send(message)

        await app(scope, receive, send_with_headers)

    def _allowing_headers(self, origin: bytes) -> list[tuple[bytes, bytes]]:
        """The headers of an answer to a request from there; "" is from no page, and yet caches have to know."""
        varies = [] if self._everybody else [(b"vary", b"origin")]
        if not origin or not (self._everybody or origin in self._origins):
            return varies
        allowed = b"*" if self._everybody else origin
        exposed = (b"access-control-expose-headers", b", ".join(EXPOSED))
        return [*varies, (b"access-control-allow-origin", allowed), exposed]

    async def _answer_preflight(self, told: list[tuple[bytes, bytes]], wanted: bytes, send: Send) -> None:
        """Any header may be sent: which ones count (a tenant's, a trace's) is no secret and no danger."""
        allowed = any(name == b"access-control-allow-origin" for name, _ in told)
        more = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", b"%d" % KEPT_S),
            (b"vary", b"access-control-request-headers"),
        ]
        headers = [*told, *(more if allowed else []), (b"content-length", b"0")]
        # 204 has no body and so no length.
        await send(
            {
                "type": "http.response.start",
                "status": 204 if allowed else 403,
                "headers": headers[:-1] if allowed else headers,
            }
        )
        await send({"type": "http.response.body", "body": b""})
