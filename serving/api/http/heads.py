"""HTTP request heads that ask for nothing unusual: read once, then recognised by their bytes.

A client repeats its head from request to request, and a proxy in front does not change that. Only what the parser of
the whole connection (httptools) finds faultless is kept, so recognising is as strict as reading.
"""

import re
from collections.abc import Container
from typing import NamedTuple

import httptools

from serving.api.exchange import REQUEST_ID, TRACEPARENT
from serving.api.http.asgi import text_header
from serving.api.recall import Recall
from serving.protocol.binary_codec import parse_header_length
from serving.protocol.compression import wanted_coding
from serving.protocol.errors import BadMessage
from serving.protocol.reply import HEADER_LENGTH

# With any of these the general way is taken: they change how a body is framed or written, or what comes back.
_UNUSUAL = frozenset((b"content-encoding", b"expect", b"trailer", b"transfer-encoding", b"upgrade"))
_MAX_DIGITS = 18
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class Head(NamedTuple):
    """What is needed of a head.

    body_bytes: how much follows it; None where the head alone does not say (chunked, or not well-formed).
    is_plain: a POST of an infer request whose answer needs nothing but what is here.
    json_bytes: the value of Inference-Header-Content-Length, None where it was not sent.
    request_id, traceparent: what the client calls this request, and its trace; empty where it does not.
    """

    body_bytes: int | None
    is_plain: bool = False
    json_bytes: int | None = None
    tenant: str = ""
    request_id: bytes = b""
    traceparent: str = ""


class Heads:
    """Reads the heads of one application.

    infer_paths: the paths of infer requests, as sent. tenant_header: lower case, empty for none.
    max_body_bytes: longer bodies are left to the general way, which refuses them. from_pages: those of web pages are
    left to it too, which answers them as browsers want it.
    """

    def __init__(
        self, infer_paths: Container[bytes], tenant_header: bytes, max_body_bytes: int, *, from_pages: bool = False
    ) -> None:
        self._unusual = _UNUSUAL | {b"origin"} if from_pages else _UNUSUAL
        self._infer_paths = infer_paths
        self._tenant_header = tenant_header
        self._max_body_bytes = max_body_bytes
        self._known: Recall[Head] = Recall()

    def read(self, raw: bytes) -> Head:
        """raw: the bytes before the empty line."""
        head = self._known.get(raw)
        if head is None:
            head = self._read(raw)
            if not (head.request_id or head.traceparent):  # those will not come again
                self._known.keep(raw, head)
        return head

    def _read(self, raw: bytes) -> Head:
        reader = _Reader()
        parser = httptools.HttpRequestParser(reader)
        try:
            parser.feed_data(raw + b"\r\n\r\n")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return Head(None)
        headers = dict(reader.headers)
        length = headers.get(b"content-length", b"0")
        is_framed = b"transfer-encoding" not in headers and length.isdigit() and len(length) <= _MAX_DIGITS
        if not reader.is_complete or not is_framed:
            return Head(None)
        body_bytes = int(length)
        is_plain = (
            parser.get_method() == b"POST"
            and reader.url in self._infer_paths
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and len(headers) == len(reader.headers)
            and 0 < body_bytes <= self._max_body_bytes
            and self._unusual.isdisjoint(headers)
            and not wanted_coding(text_header(headers, b"accept-encoding"))
        )
        if not is_plain:
            return Head(body_bytes)
        json_bytes = headers.get(HEADER_LENGTH)
        try:
            parsed = None if json_bytes is None else parse_header_length(json_bytes)
        except BadMessage:
            return Head(body_bytes)
        return Head(
            body_bytes,
            True,
            parsed,
            text_header(headers, self._tenant_header),
            headers.get(REQUEST_ID, b""),
            text_header(headers, TRACEPARENT),
        )


def without_upgrade(raw: bytes) -> bytes:
    """The head of a request that asks to go on in another protocol, as that of one which asks for nothing of the kind
    and is the last of its connection. A server may ignore the wish (RFC 9110, 7.8); httptools takes the body for bytes
    of the other protocol, and so for the next request."""
    return _UPGRADE.sub(b"\r\nConnection: close", raw)


class _Reader:
    """Collects what httptools finds."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True
