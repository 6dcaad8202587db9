"""HTTP/1.1 answers read from bytes, whatever pieces they come in. Pure.

Own, because a general client costs more per request than the servers we measure. It knows what those send: a length
or chunks."""

from collections.abc import Mapping
from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024


class BadAnswer(Exception):
    """The bytes that came are no HTTP/1.1 answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`keeps` tells whether the connection may carry another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    keeps: bool


class AnswerReader:
    """Fed with bytes as they come; hands out the answer once it is whole."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._keeps = True
        self._has_head = False
        self._length: int | None = None  # None: until the connection ends

    def feed(self, data: bytes) -> Answer | None:
        self._data += data
        if not self._has_head and not self._read_head():
            return None
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunks()
        if self._length is None or len(self._data) < self._length:
            return None
        # More than one answer to one request: whatever it is, it must not become the next request's answer.
        return self._answer(bytes(self._data[: self._length]), keeps=len(self._data) == self._length)

    def end(self) -> Answer | None:
        """The connection ended: whole only where the end was what marks it."""
        ends_here = self._has_head and self._length is None and "transfer-encoding" not in self._headers
        return self._answer(bytes(self._data), keeps=False) if ends_here else None

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            if len(self._data) > HEAD_LIMIT:
                raise BadAnswer(f"no end of the headers within {HEAD_LIMIT} bytes")
            return False
        first, *lines = bytes(self._data[:end]).decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise BadAnswer(f"not an HTTP/1 answer: {first[:60]!r}")
        self._status = int(rest[:3])
        for line in lines:
            name, _, value = line.partition(":")
            self._headers[name.strip().lower()] = value.strip()
        del self._data[: end + 4]
        if 100 <= self._status < 200:  # only an announcement; the answer follows
            self._headers.clear()
            return self._read_head()
        self._keeps = version == "HTTP/1.1" and self._headers.get("connection", "").lower() != "close"
        if self._status in (204, 304):
            self._length = 0
        elif length := self._headers.get("content-length"):
            if not length.isdigit():
                raise BadAnswer(f"content-length is {length[:20]!r}")
            self._length = int(length)
        self._has_head = True
        return True

    def _read_chunks(self) -> Answer | None:
        body, position = bytearray(), 0
        while (line_end := self._data.find(b"\r\n", position)) >= 0:
            try:
                size = int(bytes(self._data[position:line_end]).partition(b";")[0], 16)
            except ValueError:
                raise BadAnswer("a chunk without a size") from None
            if size == 0:
                trailer_end = self._data.find(b"\r\n", line_end + 2)
                return self._answer(bytes(body), keeps=True) if trailer_end >= 0 else None
            start = line_end + 2
            if len(self._data) < start + size + 2:
                return None
            body += self._data[start : start + size]
            position = start + size + 2
        return None

    def _answer(self, body: bytes, keeps: bool) -> Answer:
        return Answer(self._status, self._headers, body, keeps and self._keeps)
