"""The places of the files of the offline store: a folder, or a bucket with copies of what was read in a folder.

Files are created whole, are never changed, and only merging removes any. So a copy of a file is the file, whenever it
was made. A bucket holds the files under the paths that they have in a folder. Knows nothing of what is in the files.
"""

import asyncio
import hashlib
import os
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeVar

from serving.features.offline.settling import settle
from serving.store.files import FileStore, open_files
from serving.store.objects import AlreadyExists, BadPath, NoSuchObject, StoreUnreachable, scheme_of

AT_ONCE = 8  # files that are copied from a bucket
LARGEST_BYTES = 5 << 40  # of an object of S3
T = TypeVar("T")


class Files(Protocol):
    """Parquet files by their paths below `root`, where they lie, or their copies do. All methods raise OSError."""

    root: Path

    def listed(self, folder: Path, first: str, last: str) -> list[Path]:
        """Returns the files in those folders in this one that have a name from `first` to `last`, both included, in
        the order of their paths. In a bucket, they need not be copied."""
        ...

    def has(self, folder: Path) -> bool:
        """Returns whether anything was ever put below the folder."""
        ...

    def fetch(self, paths: Sequence[Path]) -> None:
        """Sees to it that the files can be read at these paths."""
        ...

    def created(self, path: Path) -> AbstractContextManager[BinaryIO]:
        """Yields a file to write, which gets its name when it is whole. Raises FileExistsError if the name is taken."""
        ...

    def remove(self, path: Path) -> None: ...

    def settle(self, *folders: Path) -> None:
        """Makes the names in the folders outlive a power cut."""
        ...

    def told(self, path: Path) -> str:
        """Returns where this is, for people."""
        ...


class Folder:
    """The files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def listed(self, folder: Path, first: str, last: str) -> list[Path]:
        chosen = [below for below in sorted(folder.glob("*")) if first <= below.name <= last]
        return [path for below in chosen for path in sorted(below.glob("[!.]*.parquet"))]

    def has(self, folder: Path) -> bool:
        return folder.is_dir()

    def fetch(self, paths: Sequence[Path]) -> None:
        return

    @contextmanager
    def created(self, path: Path) -> Iterator[BinaryIO]:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_name(f".{token_hex(16)}")  # `listed` passes it over
        try:
            with open(unfinished, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)
        except FileExistsError:
            settle(path.parent)  # its writer may have been killed before
            raise
        finally:
            unfinished.unlink(missing_ok=True)
        settle(path.parent)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def settle(self, *folders: Path) -> None:
        for folder in folders:
            settle(folder)

    def told(self, path: Path) -> str:
        return str(path)


class Bucket:
    """The files in an object store. root: the folder of the copies. place: the store, for people.

    May be used wherever no event loop runs."""

    def __init__(self, store: FileStore, root: Path, place: str) -> None:
        self.root = root
        self._store = store
        self._place = place

    def listed(self, folder: Path, first: str, last: str) -> list[Path]:
        within = self._key(folder)
        if first == last:
            found = self._asked(self._store.paths(f"{within}/{first}"))
        else:
            found = self._asked(self._store.paths(within, after=f"{within}/{first}"))
        paths = [self.root / key for key in found]
        chosen = [path for path in paths if path.match("[!.]*.parquet") and path.parent.parent == folder]
        chosen = [path for path in chosen if first <= path.parent.name <= last]
        there = set(chosen)
        for copy in Folder(self.root).listed(folder, first, last):
            if copy not in there:
                copy.unlink(missing_ok=True)  # the file was merged into another
        return chosen

    def has(self, folder: Path) -> bool:
        return bool(self._asked(self._store.paths(self._key(folder))))

    def fetch(self, paths: Sequence[Path]) -> None:
        missing = [path for path in paths if not path.is_file()]
        for folder in {path.parent for path in missing}:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

        async def copy() -> None:
            turns = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._copy(path, turns) for path in missing))

        if missing:
            self._asked(copy())

    @contextmanager
    def created(self, path: Path) -> Iterator[BinaryIO]:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self.root / f".{token_hex(16)}"
        try:
            with open(unfinished, "xb") as file:
                yield file
            self._asked(self._store.create(self._key(path), unfinished.read_bytes()))
        finally:
            unfinished.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        self._asked(self._store.remove(self._key(path)))
        path.unlink(missing_ok=True)

    def settle(self, *folders: Path) -> None:
        return

    def told(self, path: Path) -> str:
        return f"{self._place}/{self._key(path)}"

    async def _copy(self, path: Path, turns: asyncio.Semaphore) -> None:
        unfinished = path.with_name(f".{token_hex(16)}")
        try:
            async with turns:
                await self._store.download(self._key(path), unfinished, LARGEST_BYTES)
                await asyncio.to_thread(_place, unfinished, path)
        except NoSuchObject:
            text = "is gone, it may have been merged with others; run the command again"
            raise FileNotFoundError(f"{self.told(path)}: {text}") from None
        finally:
            unfinished.unlink(missing_ok=True)

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _asked(self, call: Coroutine[Any, Any, T]) -> T:
        """Returns what the store answers. Raises OSError in place of the store's exceptions."""
        try:
            return asyncio.run(call)
        except AlreadyExists as error:
            raise FileExistsError(f"{self._place}: {error}") from None
        except (StoreUnreachable, BadPath) as error:
            raise OSError(f"{self._place}: {error}") from None


def _place(unfinished: Path, path: Path) -> None:
    """Gives a copy its name once it is on the disk: a torn one would be taken for the file."""
    settle(unfinished)
    os.replace(unfinished, path)


Store: TypeAlias = Path | Bucket  # the offline store: a folder, or files elsewhere


def files_in(store: Store) -> Files:
    return Folder(store) if isinstance(store, Path) else store


def open_store(place: str, own: Path) -> Store:
    """Returns the offline store at this place: a folder, a `file://` or an `s3://` URL. own: for copies of files in a
    bucket. Raises BadPath, and ModuleNotFoundError without obstore."""
    scheme, rest = scheme_of(place)
    if scheme == "file":
        return Path(rest).expanduser()
    # Files of two stores may have one name and not be the same: their copies are apart.
    copies = own / "copies" / hashlib.sha256(place.rstrip("/").encode()).hexdigest()[:16]
    return Bucket(open_files(place), copies, place.rstrip("/"))
