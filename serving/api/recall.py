"""A bounded cache for what clients repeat: from byte strings to what was parsed from them."""

from typing import Generic, TypeVar

T = TypeVar("T")
MAX_KEY_BYTES = 4096
GENERATION = 256


class Recall(Generic[T]):
    """A cache of two generations of at most `generation` entries each.

    A hit in the young generation costs one look-up and no bookkeeping; an entry found in the old one is copied to the
    young one. When the young generation is full it becomes the old one, and the old one is dropped."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def get(self, key: bytes) -> T | None:
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.keep(key, value)
        return value

    def keep(self, key: bytes, value: T) -> None:
        if len(key) > MAX_KEY_BYTES:
            return
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
