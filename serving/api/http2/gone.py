"""What a frame means that comes for a stream which is no longer open. Pure.

Our end of a stream and the client's cross on the wire, so what a client says of a stream that we ended is no fault of
its own; of one that it ended itself it is.
"""

from serving.protocol.http2 import PROTOCOL_ERROR, STREAM_CLOSED, ConnectionFault, StreamFault

REMEMBERED = 4096


class GoneStreams:
    """Of one connection. Forgets the oldest beyond so many: of those frames may come, and are ignored."""

    def __init__(self) -> None:
        self._cut: dict[int, None] = {}
        self._left: dict[int, None] = {}
        self._skipped: dict[int, int] = {}
        self._forgotten = 0

    def cut(self, id: int) -> None:
        """We ended it while its client was speaking."""
        self._cut[id] = None
        if len(self._cut) > REMEMBERED:
            self._forget(self._cut)

    def left(self, id: int) -> None:
        """The client broke it off."""
        self._cut.pop(id, None)
        self._left[id] = None
        if len(self._left) > REMEMBERED:
            self._forget(self._left)

    def skip(self, first: int, end: int) -> None:
        """The client never began these."""
        self._skipped[first] = end
        if len(self._skipped) > REMEMBERED:
            self._forget(self._skipped)

    def check(self, id: int, *, ends: bool) -> None:
        """Raises where a client may not send data or headers on this stream. ends: it says so in this frame."""
        if id in self._cut:
            if ends:
                del self._cut[id]
        elif id in self._left:
            raise StreamFault(STREAM_CLOSED, "the client has broken the stream off")
        elif id <= self._forgotten:
            return
        elif any(first <= id < end for first, end in self._skipped.items()):
            raise ConnectionFault(PROTOCOL_ERROR, "a stream's number is lower than one before")
        else:
            raise ConnectionFault(STREAM_CLOSED, "the stream is over")

    def _forget(self, ids: dict[int, int] | dict[int, None]) -> None:
        oldest = next(iter(ids))
        del ids[oldest]
        self._forgotten = max(self._forgotten, oldest)
