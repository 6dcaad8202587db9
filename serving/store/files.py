"""Files in an object store, of any size: an upload, a download in pieces, and removing. For whoever names by content.

An upload replaces: names must follow from the content, so that all who write an object write the same. Removing is for
what no record names. `serving/testing/files.py` is the twin in memory; both keep the same contract
(`tests/store/test_files.py`).
"""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from serving.store.objects import (
    CALL_S,
    SLOWEST_BYTES_PER_S,
    NoSuchObject,
    Objects,
    ObjectStore,
    ObjectTooLarge,
    asked,
    checked,
    opened,
    settle,
)

PIECE_BYTES = 16 << 20  # of a file that is copied; S3 takes ten thousand of them
AT_A_TIME = 4  # pieces: at most 64 MiB of a file are in memory
UNFINISHED = "unfinished"  # the folder of uploads to a folder; what stays there was killed


class FileStore(ObjectStore, Protocol):
    """An `ObjectStore` that also copies files and removes objects. All methods raise StoreUnreachable and BadPath."""

    async def upload(self, path: str, source: Path) -> None:
        """Writes the object from a file, whole or not at all; replaces the one of this path. Raises OSError."""
        ...

    async def download(self, path: str, target: Path, most_bytes: int) -> None:
        """Writes the object into a new file. Raises NoSuchObject, OSError, and ObjectTooLarge before it writes."""
        ...

    async def remove(self, path: str) -> None:
        """Removes the object, if there is one."""
        ...

    async def ages_s(self, folder: str, now_s: int) -> Mapping[str, int]:
        """Returns all objects below the folder by path, with the seconds since each was written."""
        ...


def open_files(place: str) -> "Files":
    """Returns the store at this place, as `serving.store.objects.open_store` does, and raises the same."""
    return Files(*opened(place), place)


class Files(Objects):
    """A `FileStore` of obstore's."""

    async def upload(self, path: str, source: Path) -> None:
        import obstore

        checked(path)
        await self._is_there()
        size = (await asyncio.to_thread(source.stat)).st_size
        limit_s = CALL_S + size / SLOWEST_BYTES_PER_S
        if self._root is not None:
            await asked(asyncio.to_thread(_placed, source, self._root, path), limit_s=limit_s)
            return
        options: dict[str, Any] = {"chunk_size": PIECE_BYTES, "max_concurrency": AT_A_TIME}
        await asked(obstore.put_async(self._store, path, source, **options), limit_s=limit_s)

    async def download(self, path: str, target: Path, most_bytes: int) -> None:
        import obstore

        checked(path)
        await self._is_there()
        size = (await asked(obstore.head_async(self._store, path), may_miss=True))["size"]
        if size > most_bytes:
            raise ObjectTooLarge(f"{path} has {size} bytes; {most_bytes} were expected")
        file = await asyncio.to_thread(target.open, "xb")
        try:
            for first in range(0, size, PIECE_BYTES * AT_A_TIME):
                starts = range(first, min(size, first + PIECE_BYTES * AT_A_TIME), PIECE_BYTES)
                for piece in await asyncio.gather(*(self._piece(path, start, size) for start in starts)):
                    await asyncio.to_thread(file.write, piece)
        finally:
            await asyncio.to_thread(file.close)

    async def remove(self, path: str) -> None:
        import obstore

        checked(path)
        await self._is_there()
        try:
            await asked(obstore.delete_async(self._store, path), may_miss=True)
        except NoSuchObject:
            return  # a bucket does not say so

    async def ages_s(self, folder: str, now_s: int) -> Mapping[str, int]:
        checked(folder)
        await self._is_there()
        found = await asked(self._found(folder), limit_s=CALL_S)
        return {one["path"]: max(0, now_s - int(one["last_modified"].timestamp())) for one in found}

    async def _found(self, folder: str) -> list[Any]:
        import obstore

        return [found async for many in obstore.list(self._store, folder) for found in many]

    async def _piece(self, path: str, start: int, size: int) -> bytes:
        import obstore

        length = min(PIECE_BYTES, size - start)
        limit_s = CALL_S + AT_A_TIME * PIECE_BYTES / SLOWEST_BYTES_PER_S
        call = obstore.get_range_async(self._store, path, start=start, length=length)
        return bytes(await asked(call, may_miss=True, limit_s=limit_s))


def _placed(source: Path, root: Path, path: str) -> None:
    """Copies a file into the folder of a store, whole or not at all. obstore does so too, but what it leaves when it is
    killed lies beside the target, and no listing shows it."""
    staged, target = root / UNFINISHED / token_hex(8), root / path
    for folder in (staged.parent, target.parent):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, staged)
        settle(staged)
        staged.replace(target)
        settle(target)
    finally:
        staged.unlink(missing_ok=True)
