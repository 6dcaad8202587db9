"""An object store behind three verbs: create an object, get one, list paths. A folder or a bucket, through obstore.

Objects are created once and never changed or deleted, so a reader that knows how far it has read needs only what came
after. Knows nothing of what the objects mean. `serving/testing/objects.py` is the twin in memory; both keep the same
contract (`tests/store/test_objects.py`). Large files, and removing, are in `files.py`.
"""

import asyncio
import os
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")
CALL_S = 10.0  # the longest that a call of the store may take
SLOWEST_BYTES_PER_S = 1 << 20  # of a store that is not down
MOST_BYTES = 64 << 20
_SEGMENT = re.compile(r"(?!\.+$)[A-Za-z0-9._=+@~%-]{1,255}")
_LONGEST_PATH = 1000


class StoreUnreachable(Exception):
    """The store did not do what it was asked, and may later: it is not there, too slow, or denies access.

    After a `create` it is unknown whether the object was created.
    """


class NoSuchObject(Exception):
    """The store was reached and has no object of this path."""


class AlreadyExists(Exception):
    """The object was not created, because the store has one of this path. That one is unchanged."""


class ObjectTooLarge(Exception):
    """The object is larger than the reader takes."""


class BadPath(ValueError):
    """The path or the URL is none that a store takes. A mistake of the caller: no store was asked."""


class ObjectStore(Protocol):
    """A store of objects by path: `keys/log/000000000001.json`. All methods raise StoreUnreachable and BadPath."""

    async def create(self, path: str, data: bytes) -> None:
        """Creates the object, whole or not at all. Raises AlreadyExists; of several that create the same, one wins."""
        ...

    async def get(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        """Returns the object. Raises NoSuchObject, and ObjectTooLarge if it has more than `most_bytes`."""
        ...

    async def paths(self, folder: str, after: str = "") -> list[str]:
        """Returns the paths of all objects below the folder, sorted as text; of those only what sorts after `after`."""
        ...


def checked(path: str) -> str:
    """Returns the path if a store takes it. Raises BadPath for one that is empty, absolute, or leaves its folder."""
    if len(path) > _LONGEST_PATH or not all(map(_SEGMENT.fullmatch, path.split("/"))):
        raise BadPath(f"{path[:200]!r} is no path of an object; use letters, digits and ._=+@~%- between slashes")
    return path


def open_store(place: str) -> "Objects":
    """Returns the store at this place: a folder, which is created if it is missing, a `file://` or an `s3://` URL.

    Credentials and region of S3 are found as AWS's own tools find them in the environment. Raises BadPath,
    StoreUnreachable if a folder cannot be created, and ModuleNotFoundError with advice without `headway[auth]`.
    """
    return Objects(*opened(place), place)


def opened(place: str) -> tuple[Any, Path | None]:
    """Returns obstore's store at this place, and the folder of a local one. Raises what `open_store` raises."""
    try:
        from obstore.store import LocalStore, from_url
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "an object store needs obstore: pip install 'headway[auth]'", name="obstore"
        ) from None
    scheme, rest = scheme_of(place)
    if scheme == "file":
        root = Path(rest)
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            return LocalStore(root), root
        except (OSError, ValueError) as error:
            raise StoreUnreachable(f"{root}: {getattr(error, 'strerror', None) or type(error).__name__}") from None
    try:
        return from_url(place), None
    except Exception as error:
        raise BadPath(f"{place}: {_first_line(error)}") from None


def scheme_of(place: str) -> tuple[str, str]:
    """Returns (`file`, the folder) or (`s3`, the URL). Raises BadPath for any other place."""
    if "://" not in place:
        return "file", place
    parts = urlsplit(place)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return "file", unquote(parts.path)
    if parts.scheme == "s3" and parts.netloc and not parts.username:
        return "s3", place
    shown = "a URL with a password" if "@" in place else repr(place)
    raise BadPath(f"{shown} is no place for objects; write a folder, file:///folder, or s3://bucket/folder")


class Objects:
    """An `ObjectStore` of obstore's.

    root: the folder of a local store. While it is missing, its disk is not mounted, say; obstore would call it empty.
    place: for people.
    """

    def __init__(self, store: Any, root: Path | None, place: str) -> None:
        self._store = store
        self._root = root
        self._place = place

    def __repr__(self) -> str:
        return f"<Objects in {self._place}>"

    async def create(self, path: str, data: bytes) -> None:
        import obstore

        checked(path)
        await self._is_there()
        await asked(
            obstore.put_async(self._store, path, data, mode="create"),
            limit_s=CALL_S + len(data) / SLOWEST_BYTES_PER_S,
        )
        if self._root is not None:
            await asked(asyncio.to_thread(settle, self._root / path))

    async def get(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        import obstore

        checked(path)
        await self._is_there()
        found = await asked(obstore.get_async(self._store, path), may_miss=True)
        if (size := found.meta["size"]) > most_bytes:
            raise ObjectTooLarge(f"{path} has {size} bytes; at most {most_bytes} are read")
        return bytes(await asked(found.bytes_async()))

    async def paths(self, folder: str, after: str = "") -> list[str]:
        checked(folder)
        await self._is_there()
        return sorted(await asked(self._listed(folder, after or None)))

    async def _listed(self, folder: str, after: str | None) -> list[str]:
        import obstore

        return [found["path"] async for many in obstore.list(self._store, folder, offset=after) for found in many]

    async def _is_there(self) -> None:
        if self._root is not None and not await asked(asyncio.to_thread(self._root.is_dir)):
            raise StoreUnreachable(f"{self._root} is not there")


async def asked(call: Awaitable[T], *, may_miss: bool = False, limit_s: float = CALL_S) -> T:
    """Awaits a call of obstore. Raises our exceptions in place of its own.

    may_miss: whether an object that is not found is missing, and not the store.
    """
    from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError:
        raise StoreUnreachable(f"the object store did not answer in {limit_s:.0f} s") from None
    except (NotFoundError, FileNotFoundError) as error:
        text = _first_line(error)
        if may_miss and "NoSuchBucket" not in str(error):
            raise NoSuchObject(text) from None
        raise StoreUnreachable(text) from None
    except (AlreadyExistsError, PreconditionError) as error:  # S3 says the second
        raise AlreadyExists(_first_line(error)) from None
    except Exception as error:  # obstore raises several classes of its own and some of Python's
        raise StoreUnreachable(f"{type(error).__name__}: {_first_line(error)}") from error


def settle(path: Path) -> None:
    """Writes the file and its name to the disk; until then, a power cut may leave an empty file."""
    for place in (path, path.parent):
        file = os.open(place, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _first_line(error: Exception) -> str:
    """Returns the first line of obstore's text; the others repeat it as a Rust value."""
    return str(error).partition("\n")[0][:300]
