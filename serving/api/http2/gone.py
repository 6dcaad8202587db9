"""Decides whether a frame on a closed stream is an error (RFC 9113, section 5.1). Pure.

When the server ends a stream, frames of the client may already be on the wire: they are no error. Frames on a stream
that the client itself ended are one.
"""

from serving.protocol.http2 import PROTOCOL_ERROR, STREAM_CLOSED, ConnectionFault, StreamFault

REMEMBERED = 4096  # streams per kind


class GoneStreams:
    """The closed streams of one connection. Forgets the oldest beyond REMEMBERED; frames on those are ignored."""

    def __init__(self) -> None:
        self._cut: dict[int, None] = {}
        self._left: dict[int, None] = {}
        self._skipped: dict[int, int] = {}
        self._forgotten = 0

    def cut(self, id: int) -> None:
        """Records a stream that the server ended before the client had ended its side."""
        self._cut[id] = None
        if len(self._cut) > REMEMBERED:
            self._forget(self._cut)

    def left(self, id: int) -> None:
        """Records a stream that the client reset."""
        self._cut.pop(id, None)
        self._left[id] = None
        if len(self._left) > REMEMBERED:
            self._forget(self._left)

    def skip(self, first: int, end: int) -> None:
        """Records the streams `first` to `end` (exclusive) as closed without use: the client skipped their numbers."""
        self._skipped[first] = end
        if len(self._skipped) > REMEMBERED:
            self._forget(self._skipped)

    def check(self, id: int, *, ends: bool) -> None:
        """Checks a DATA or HEADERS frame on a closed stream. ends: the frame has END_STREAM. Raises StreamFault or
        ConnectionFault if the client may not send it."""
        if id in self._cut:
            if ends:
                del self._cut[id]
        elif id in self._left:
            raise StreamFault(STREAM_CLOSED, "the client has reset the stream")
        elif id <= self._forgotten:
            return
        elif any(first <= id < end for first, end in self._skipped.items()):
            raise ConnectionFault(PROTOCOL_ERROR, "a new stream's number is lower than an earlier one")
        else:
            raise ConnectionFault(STREAM_CLOSED, "the stream is closed")

    def _forget(self, ids: dict[int, int] | dict[int, None]) -> None:
        oldest = next(iter(ids))
        del ids[oldest]
        self._forgotten = max(self._forgotten, oldest)
