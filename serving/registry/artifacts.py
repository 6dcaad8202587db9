"""The files of versions in an object store: pushes a folder, reads a manifest, removes what nobody needs.

`models/<model>/versions/<hash>/manifest.json` and `.../files/<path>`. Files come first, then the manifest, and the
record in the model's log last: a push that ends anywhere before is no version. What may be in a file is judged by
`inspection.py`. Does not know the settings.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from serving.registry.changes import AlreadyRegistered, Author, registration
from serving.registry.inspection import inspect
from serving.registry.log import ModelLog
from serving.registry.manifest import MOST_MANIFEST_BYTES, BadManifest, File, Manifest, names_mistake, parsed
from serving.registry.state import State, Version, fold
from serving.store.files import UNFINISHED, FileStore
from serving.store.objects import AlreadyExists, NoSuchObject, ObjectStore, ObjectTooLarge

SETTLED_S = 24 * 3600  # what a push has written may wait this long for its record
NOT_MEANT = ("__pycache__", ".git")  # folders that change by themselves, and may hold what is nobody else's business


class BadArtifact(Exception):
    """The folder or the version cannot be used. The text names the file and says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file in a folder to push: where it is, and by what a change of it would show."""

    path: Path
    seen: tuple[int, int, int]


def folder_of(model: str, digest: str) -> str:
    return f"models/{model}/versions/{digest}"


def manifest_path(model: str, digest: str) -> str:
    return f"{folder_of(model, digest)}/manifest.json"


def file_path(model: str, digest: str, name: str) -> str:
    return f"{folder_of(model, digest)}/files/{name}"


def survey(folder: Path, *, leave_out: Iterable[str] = ()) -> dict[str, Found]:
    """Returns the files below a folder by their paths in it, sorted. leave_out: paths that are not meant.

    Nor are those below `NOT_MEANT`. Raises BadArtifact for links, devices and names that no store takes."""
    try:
        found = dict(sorted(_found(folder, folder)))
    except OSError as error:
        raise BadArtifact(f"{folder}: {error.strerror}") from None
    found = {name: one for name, one in found.items() if name not in set(leave_out)}
    if mistake := names_mistake(found):
        raise BadArtifact(mistake)
    return found


def _found(folder: Path, root: Path) -> Iterator[tuple[str, Found]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            facts = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                if entry.name not in NOT_MEANT:
                    yield from _found(path, root)
            elif stat.S_ISREG(facts.st_mode):
                yield name, Found(path, _seen(facts))
            else:
                kind = "a link, which may lead anywhere" if entry.is_symlink() else "no file"
                raise BadArtifact(f"{name}: is {kind}; copy the file itself into the folder")


def _seen(facts: os.stat_result) -> tuple[int, int, int]:
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def hashed(files: Mapping[str, Found]) -> dict[str, File]:
    """Returns the sizes and hashes of files, each of which is inspected. Reads them all, in pieces.

    Raises UnsafeFile, and BadArtifact for a file that cannot be read."""
    try:
        for name, found in files.items():
            inspect(found.path, name)
        return {name: File(found.path.stat().st_size, digest_of(found.path)) for name, found in files.items()}
    except OSError as error:
        raise BadArtifact(f"{error.filename}: {error.strerror}") from None


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


async def push(
    store: FileStore,
    model: str,
    manifest: Manifest,
    files: Mapping[str, Found],
    author: Author,
    say: Callable[[str], None] = lambda text: None,
) -> Version:
    """Writes a version and its record, and returns it. say: is told each file that is written.

    Raises AlreadyRegistered if the content is a version already, BadArtifact if a file has changed since it was
    hashed, and what the store and the log raise; after any of them the push can be tried again."""
    digest, log = manifest.digest, ModelLog(store, model)
    await log.read_new()
    if (version := fold(log.records).of_digest(digest)) is not None:
        raise AlreadyRegistered(version)
    for name, found in files.items():
        say(name)
        await store.upload(file_path(model, digest, name), found.path)
    await asyncio.to_thread(_check_unchanged, files)
    try:
        await store.create(manifest_path(model, digest), manifest.content())
    except AlreadyExists:  # of a push that ended before its record
        await read_manifest(store, model, digest)
    await log.append(registration(author, digest))
    version = fold(log.records).of_digest(digest)
    assert version is not None
    return version


def _check_unchanged(files: Mapping[str, Found]) -> None:
    for name, found in files.items():
        if not found.path.is_file() or _seen(found.path.lstat()) != found.seen:
            raise BadArtifact(f"{name}: was changed while it was pushed; push again")


async def read_manifest(store: ObjectStore, model: str, digest: str) -> Manifest:
    """Returns the manifest of a version. Raises BadArtifact and StoreUnreachable."""
    try:
        return parsed(await store.get(manifest_path(model, digest), MOST_MANIFEST_BYTES), digest)
    except NoSuchObject:
        raise BadArtifact(f"version {digest[:12]} has no manifest in the store") from None
    except (BadManifest, ObjectTooLarge) as error:
        raise BadArtifact(f"version {digest[:12]}: {error}") from None


@dataclass(frozen=True, slots=True)
class Waste:
    """Objects of a model that nobody needs. whole: of versions without a record; archived: files of archived ones."""

    whole: tuple[str, ...] = ()
    archived: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.whole, *self.archived)


def waste(model: str, state: State, ages_s: Mapping[str, int]) -> Waste:
    """Returns what may be removed, given the objects of the model's versions with their ages.

    Nothing of a version that serves, would after a rollback, or is not archived; nothing that is younger than a day,
    because a push may be at work; and no manifest of a version with a record, since the history tells of it."""
    route = state.route
    serving = {route.stable, route.candidate, state.before()} if route else set()
    kept = {one.digest for number, one in state.versions.items() if not one.archived or number in serving}
    known = {one.digest for one in state.versions.values()}
    parts = {path: path.removeprefix(f"models/{model}/versions/").split("/") for path in ages_s}
    youngest: dict[str, int] = {}
    for path, age_s in ages_s.items():
        youngest[parts[path][0]] = min(age_s, youngest.get(parts[path][0], age_s))
    old = [path for path in ages_s if youngest[parts[path][0]] >= SETTLED_S and parts[path][0] not in kept]
    return Waste(
        whole=tuple(path for path in old if parts[path][0] not in known),
        archived=tuple(path for path in old if parts[path][0] in known and parts[path][1:] != ["manifest.json"]),
    )


async def find_unfinished(store: FileStore, now_s: int) -> tuple[str, ...]:
    """Returns what is left of uploads that were killed. Raises StoreUnreachable."""
    ages_s = await store.ages_s(UNFINISHED, now_s)
    return tuple(path for path, age_s in ages_s.items() if age_s >= SETTLED_S)


async def find_waste(store: FileStore, model: str, now_s: int) -> Waste:
    """Returns what may be removed of a model. Raises RecordsUnreadable if it cannot be known, and StoreUnreachable."""
    log = ModelLog(store, model)
    ages_s = await store.ages_s(f"models/{model}/versions", now_s)
    await log.read_new()  # after the objects, so that a version that was finished meanwhile is known
    log.check_readable()
    return waste(model, fold(log.records), ages_s)
