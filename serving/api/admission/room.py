"""How many bytes of bodies a replica holds at a time: those that arrive, wait or are computed, over both wires.

The queue bounds requests by their number, and that many of the largest would fill any machine. Small bodies are not
counted here: their number is bound enough. Bytes count as they arrive, inflated ones when they are there.
"""

from serving.api.faults import CallFailed, Fault, retry_after

COUNTED_BYTES = 1 << 14  # of a body; what is smaller does not count
_LEAST_BYTES = 256 << 20
_LARGEST_BODIES = 8
_SOON_NS = 1_000_000_000
NO_ROOM = Fault(
    503, "request refused: the bodies of requests under way take all memory set aside for them",
    (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip


class Room:
    """Shared by all connections of a replica. Eight of the largest bodies find room, and 256 MiB of smaller ones."""

    def __init__(self, max_body_bytes: int = 0) -> None:
        self.limit = max(_LEAST_BYTES, _LARGEST_BODIES * max_body_bytes)
        self.held = 0


class Held:
    """What one request holds of it. Give it back when the request is over, however it ends."""

    __slots__ = ("_room", "bytes")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises CallFailed where there is no room."""
        room = self._room
        if room.held + size > room.limit:
            raise CallFailed(NO_ROOM)
        room.held += size
        self.bytes += size

    def give_back(self) -> None:
        """All of it; again it does nothing."""
        self._room.held -= self.bytes
        self.bytes = 0

    def __del__(self) -> None:
        # A task that is cancelled before it begins has nobody else to do it.
        self.give_back()
