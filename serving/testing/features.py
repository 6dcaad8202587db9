"""Features in the memory of this process: the twin of the store in Redis for tests, with the same contract."""

from collections.abc import Sequence

from serving.core.clock import Clock
from serving.features.reading import Found, Reason, Stored
from serving.store.features import Wanted, Write

Place = tuple[str, str, str, str]  # tenant, entity, id, feature


class MemoryFeatureStore:
    """The features of all tenants. clock: as Redis's own, it says when a value is kept no longer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Place, tuple[Stored, int]] = {}  # each with the end of its time, in ns

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        return [[self._found((one.tenant, one.entity, one.id, name)) for name in one.features] for one in wanted]

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        return [self._write(write) for write in writes]

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    def _found(self, place: Place) -> Found:
        value, until_ns = self._kept.get(place, (Reason.MISSING, 0))
        return value if self._clock.now_ns() < until_ns else Reason.MISSING

    def _write(self, write: Write) -> bool:
        place = (write.tenant, write.entity, write.id, write.feature)
        stored = self._found(place)
        if isinstance(stored, Stored) and stored.event_ms > write.value.event_ms:
            return False
        self._kept[place] = write.value, self._clock.now_ns() + write.keep_ms * 1_000_000
        return True
