"""A bound on the bytes of request bodies that a replica holds: those that arrive, wait or are computed, on both wires.

The queue bounds only the number of requests, and that many of the largest bodies would exceed any machine's memory.
Small bodies are not counted here: the bound on their number is enough. Bytes are counted as they arrive; for a
compressed body, its inflated size is counted after inflating.
"""

from serving.api.faults import CallFailed, Fault, retry_after

COUNTED_BYTES = 1 << 14  # smaller bodies are not counted
_LEAST_BYTES = 256 << 20
_LARGEST_BODIES = 8
_SOON_NS = 1_000_000_000
NO_ROOM = Fault(
    503, "request refused: the bodies of requests in flight fill the memory reserved for them; retry later",
    (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip


class Room:
    """The bytes of bodies held by all connections of a replica.

    The limit is the larger of 256 MiB and eight bodies of `max_body_bytes`."""

    def __init__(self, max_body_bytes: int = 0) -> None:
        self.limit = max(_LEAST_BYTES, _LARGEST_BODIES * max_body_bytes)
        self.held = 0


class Held:
    """The bytes that one request holds of the room. Must be given back when the request ends, also if it fails."""

    __slots__ = ("_room", "bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, size: int) -> None:
        """Adds `size` bytes to those held. Raises CallFailed (503) if there is no room."""
        room = self._room
        if room.held + size > room.limit:
            raise CallFailed(NO_ROOM)
        room.held += size
        self.bytes += size

    def give_back(self) -> None:
        """Gives back all bytes; further calls have no effect."""
        self._room.held -= self.bytes
        self.bytes = 0

    def __del__(self) -> None:
        # A task that is cancelled before its first step never reaches its own call of `give_back`.
        self.give_back()
