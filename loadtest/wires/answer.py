"""An incremental parser of HTTP/1.1 answers, without I/O.

A general HTTP client would cost more per request than the servers under test. This parser supports bodies with a
content length, in chunks, and up to the end of the connection."""

from collections.abc import Mapping
from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024


class BadAnswer(Exception):
    """The received bytes are not an HTTP/1.1 answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. `keeps`: the connection can be used for another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    keeps: bool


class AnswerReader:
    """Parses one answer from bytes in any pieces. `feed` returns the answer when it is complete. Raises BadAnswer."""

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
        # Bytes after the answer must not be taken for the answer to the next request.
        return self._answer(bytes(self._data[: self._length]), keeps=len(self._data) == self._length)

    def end(self) -> Answer | None:
        """Handles the end of the connection. Returns the answer if its body extends to this end, else None."""
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
        if 100 <= self._status < 200:  # an interim answer; the final one follows
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
