"""Decides by the head of an HTTP request whether it takes the fast path. Parsed heads are cached by their bytes.

Clients repeat their heads from request to request, with or without a proxy in front. Only heads that httptools, the
parser of the connection, accepts are treated as plain, so the look-up is as strict as parsing.
"""

import re
from collections.abc import Container
from typing import NamedTuple

import httptools

from serving.api.admission.gate import Peer
from serving.api.exchange import REQUEST_ID, TRACEPARENT
from serving.api.http.asgi import text_header
from serving.api.recall import Recall
from serving.protocol.binary_codec import parse_header_length
from serving.protocol.compression import wanted_coding
from serving.protocol.errors import BadMessage
from serving.protocol.reply import HEADER_LENGTH

# Requests with any of these headers take the general path: they change how the body is framed or encoded, or what the
# server answers.
_UNUSUAL = frozenset((b"content-encoding", b"expect", b"trailer", b"transfer-encoding", b"upgrade"))
_MAX_DIGITS = 18
_UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)


class Head(NamedTuple):
    """The facts about a request that its head states.

    body_bytes: the length of the body; None if the head does not state it (chunked or malformed).
    is_plain: whether it is the POST of an infer request that the fast path can answer.
    peer: who asks; the address is only in a header of the load balancer, if there is one.
    json_bytes: the value of Inference-Header-Content-Length, None if it was not sent.
    request_id, traceparent: the headers of these names; empty if they were not sent.
    """

    body_bytes: int | None
    is_plain: bool = False
    json_bytes: int | None = None
    tenant: str = ""
    request_id: bytes = b""
    traceparent: str = ""
    peer: Peer = Peer(str)


class Heads:
    """Reads the heads of one application's requests.

    infer_paths: the paths of infer requests, as sent. tenant_header: in lower case, empty for none.
    max_body_bytes: longer bodies take the general path, which refuses them.
    from_pages: whether web pages may send requests; these take the general path, which adds the headers of CORS.
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
        """Returns what a head states, from the cache if possible. raw: the bytes before the empty line."""
        head = self._known.get(raw)
        if head is None:
            head = self._read(raw)
            if not (head.request_id or head.traceparent):  # such heads do not repeat
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
            Peer(lambda name: text_header(headers, name.encode()), "", {}),
        )


def without_upgrade(raw: bytes) -> bytes:
    """Returns the head with `Connection: close` in place of a request to upgrade the protocol.

    A server may ignore such a request (RFC 9110, 7.8). With the header Upgrade, httptools would take the body for bytes
    of the other protocol, and thus for the next request.
    """
    return _UPGRADE.sub(b"\r\nConnection: close", raw)


class _Reader:
    """Collects the parts of a head that httptools reports."""

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
