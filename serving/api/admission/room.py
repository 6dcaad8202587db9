"""Bounds the bytes of request bodies that a replica holds: those that arrive, wait or are computed, over both wires.

The queue bounds only the number of requests: that many of the largest bodies would fill any machine's memory. Small
bodies are not counted, since their number is bounded. Bytes count when they arrive, those of a decompressed body after
decompression.
"""

from serving.api.faults import CallFailed, Fault, retry_after

COUNTED_BYTES = 1 << 14  # smaller bodies are not counted
_LEAST_BYTES = 256 << 20
_LARGEST_BODIES = 8
_SOON_NS = 1_000_000_000
NO_ROOM = Fault(
    503, "request refused: the bodies of requests under way take all memory set aside for them",
    (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip


class Room:
    """The bytes held by a replica's connections, at most 256 MiB or eight of the largest bodies, if that is more."""

    def __init__(self, max_body_bytes: int = 0) -> None:
        self.limit = max(_LEAST_BYTES, _LARGEST_BODIES * max_body_bytes)
        self.held = 0


class Held:
    """The bytes that one request holds of the room. They must be given back when the request ends, however it ends."""

    __slots__ = ("_room", "bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, size: int) -> None:
        """Takes `size` more bytes. Raises CallFailed if there is no room for them."""
        room = self._room
        if room.held + size > room.limit:
            raise CallFailed(NO_ROOM)
        room.held += size
        self.bytes += size

    def give_back(self) -> None:
        """Gives all bytes back. May be called repeatedly."""
        self._room.held -= self.bytes
        self.bytes = 0

    def __del__(self) -> None:
        # A task that is cancelled before it begins never reaches its `finally`.
        self.give_back()
