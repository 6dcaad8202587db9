"""A bound on the bytes of request bodies that a replica holds: those that arrive, wait or are computed, on both wires.

The queue bounds only the number of requests, and that many of the largest bodies would exceed any machine's memory.
Small bodies are not counted here: the bound on their number is enough. Bytes are counted as they arrive; for a
compressed body, its inflated size is counted after inflating. Where there are tenants, the requests of each that are
still arriving are counted too: a slow upload holds a connection, however small it is.
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
NO_SHARE = Fault(
    503, "request refused: the bodies of this tenant's requests in flight fill its share of the memory reserved for "
    "them; retry later", (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip
MOST_ARRIVING = 1024  # requests of one tenant; HAProxy has 4096 connections for all
TOO_MANY_ARRIVE = Fault(
    503, f"request refused: {MOST_ARRIVING} requests of this tenant are arriving already; send fewer at a time",
    (retry_after(_SOON_NS),), _SOON_NS,
)  # fmt: skip


class Room:
    """The bytes of bodies held by all connections of a replica, and the requests that are arriving, by tenant.

    limit: the larger of 256 MiB and eight bodies of `max_body_bytes`. share: the most that one tenant may hold: half of
    it, so that a tenant with many uploads does not keep the others out.
    """

    def __init__(self, max_body_bytes: int = 0) -> None:
        self.limit = max(_LEAST_BYTES, _LARGEST_BODIES * max_body_bytes)
        self.share = self.limit // 2
        self.held = 0
        self.held_by: dict[str, int] = {}
        self.arriving: dict[str, int] = {}


class Held:
    """The part of the room that one request holds. Must be given back when the request ends, also if it fails.

    tenant: on whose behalf, "" for a server with one tenant. It may change while nothing is held.
    """

    __slots__ = ("_is_arriving", "_room", "bytes", "tenant")

    def __init__(self, room: Room, tenant: str = "") -> None:
        self._room = room
        self.bytes = 0
        self.tenant = tenant
        self._is_arriving = False

    def arrive(self) -> None:
        """Counts the request among those of its tenant that are arriving, until `arrived` or `give_back`. Without a
        tenant it is not counted. Raises CallFailed (503) if there are too many."""
        if self.tenant and not self._is_arriving:
            arriving = self._room.arriving
            count = arriving.get(self.tenant, 0)
            if count >= MOST_ARRIVING:
                raise CallFailed(TOO_MANY_ARRIVE)
            arriving[self.tenant] = count + 1
            self._is_arriving = True

    def arrived(self) -> None:
        """Notes that the request is complete, or will not be read any further."""
        if self._is_arriving:
            self._is_arriving = False
            arriving = self._room.arriving
            arriving[self.tenant] -= 1
            if not arriving[self.tenant]:
                del arriving[self.tenant]

    def take(self, size: int) -> None:
        """Adds `size` bytes to those held. Raises CallFailed (503) if there is no room, or not for this tenant."""
        room = self._room
        if room.held + size > room.limit:
            raise CallFailed(NO_ROOM)
        if self.tenant:
            by_tenant = room.held_by.get(self.tenant, 0) + size
            if by_tenant > room.share:
                raise CallFailed(NO_SHARE)
            room.held_by[self.tenant] = by_tenant
        room.held += size
        self.bytes += size

    def give_back(self) -> None:
        """Gives back all; further calls have no effect."""
        self.arrived()
        room = self._room
        room.held -= self.bytes
        if self.tenant and self.bytes:
            room.held_by[self.tenant] -= self.bytes
            if not room.held_by[self.tenant]:
                del room.held_by[self.tenant]
        self.bytes = 0

    def __del__(self) -> None:
        # A task that is cancelled before its first step never reaches its own call of `give_back`.
        self.give_back()
