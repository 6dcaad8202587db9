"""An object store in memory, for tests: real, and it fails at the call that a test names."""

from serving.store.objects import MOST_BYTES, AlreadyExists, NoSuchObject, ObjectTooLarge, StoreUnreachable, checked


class MemoryObjects:
    """An `ObjectStore` in memory.

    fails_at: the numbers of the calls, from 0, that raise StoreUnreachable. writes_then_fails: whether such a `create`
        has created its object before. is_down: every call fails.
    """

    def __init__(self, *, fails_at: frozenset[int] = frozenset(), writes_then_fails: bool = False) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_down = False
        self.calls = 0
        self.asked: list[tuple[str, str]] = []
        self.fails_at = fails_at
        self._writes_then_fails = writes_then_fails

    async def create(self, path: str, data: bytes) -> None:
        fails = self._count("create", path)
        if not fails or self._writes_then_fails:
            if path in self.objects:
                raise AlreadyExists(path)
            self.objects[path] = data
        self._raise(fails)

    async def get(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        self._raise(self._count("get", path))
        if path not in self.objects:
            raise NoSuchObject(path)
        if len(self.objects[path]) > most_bytes:
            raise ObjectTooLarge(path)
        return self.objects[path]

    async def paths(self, folder: str, after: str = "") -> list[str]:
        self._raise(self._count("paths", folder))
        return sorted(path for path in self.objects if path.startswith(f"{folder}/") and path > after)

    def _count(self, verb: str, path: str) -> bool:
        checked(path)
        number, self.calls = self.calls, self.calls + 1
        self.asked.append((verb, path))
        return self.is_down or number in self.fails_at

    def _raise(self, fails: bool) -> None:
        if fails:
            raise StoreUnreachable("the test says so")
