"""A store of files in memory, for tests: real, and it fails at the call that a test names."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from serving.store.objects import NoSuchObject, ObjectTooLarge
from serving.testing.objects import MemoryObjects


class MemoryFiles(MemoryObjects):
    """A `FileStore` in memory. age_s: of all objects."""

    age_s = 0

    async def upload(self, path: str, source: Path) -> None:
        fails = self._count("upload", path)
        if not fails or self._writes_then_fails:
            self.objects[path] = await asyncio.to_thread(source.read_bytes)
        self._raise(fails)

    async def download(self, path: str, target: Path, most_bytes: int) -> None:
        fails = self._count("download", path)
        if path not in self.objects:
            self._raise(fails)
            raise NoSuchObject(path)
        data = self.objects[path]
        if len(data) > most_bytes:
            raise ObjectTooLarge(path)
        # A torn download leaves a part.
        await asyncio.to_thread(_write_new, target, data[: len(data) // 2] if fails else data)
        self._raise(fails)

    async def remove(self, path: str) -> None:
        fails = self._count("remove", path)
        if not fails or self._writes_then_fails:
            self.objects.pop(path, None)
        self._raise(fails)

    async def ages_s(self, folder: str, now_s: int) -> Mapping[str, int]:
        self._raise(self._count("ages_s", folder))
        return {path: self.age_s for path in self.objects if path.startswith(f"{folder}/")}


def _write_new(target: Path, data: bytes) -> None:
    with target.open("xb") as file:
        file.write(data)
