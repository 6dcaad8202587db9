"""A bounded memory for what clients repeat: byte strings, and what was made of them."""

from typing import Generic, TypeVar

T = TypeVar("T")
MAX_KEY_BYTES = 4096
GENERATION = 256


class Recall(Generic[T]):
    """Two generations, so that a hit costs one look-up and no bookkeeping: what is used moves to the young one."""

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}

    def get(self, key: bytes) -> T | None:
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key)
            if found is not None:
                self.keep(key, found)
        return found

    def keep(self, key: bytes, value: T) -> None:
        if len(key) > MAX_KEY_BYTES:
            return
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[key] = value

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
