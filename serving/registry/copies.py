"""Copies of versions on this machine, from which replicas load: whole or not there, and verified before every use.

A copy is `<root>/<model>/<hash>/` with the manifest and the files. It is written under another name and renamed when
all is verified, so that any number of processes may want the same one. Needs the store only for what is not here yet.
"""

import asyncio
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from serving.registry.artifacts import BadArtifact, digest_of, file_path, read_manifest
from serving.registry.inspection import UnsafeFile, inspect
from serving.registry.manifest import BadManifest, Manifest, parsed
from serving.store.files import FileStore
from serving.store.objects import NoSuchObject, ObjectTooLarge

logger = logging.getLogger("ray.serve")
UNFINISHED = ".part-"  # begins the name of a copy in the making


class Copy(NamedTuple):
    """A verified copy. folder: with the files as they were pushed."""

    folder: Path
    manifest: Manifest


def copies_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder of this user's copies: in `HEADWAY_CACHE`, else beside other caches, else for temporaries."""
    if chosen := environment.get("HEADWAY_CACHE"):
        return Path(chosen) / "registry"
    try:
        base = Path(environment["XDG_CACHE_HOME"]) if environment.get("XDG_CACHE_HOME") else Path.home() / ".cache"
    except RuntimeError:  # no home folder
        return Path(tempfile.gettempdir(), f"headway-registry-{os.getuid()}")
    return base / "headway" / "registry"


class Copies:
    """The copies in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def find(self, model: str, digest: str) -> Copy | None:
        """Returns the copy of a version, None if there is none. One that was damaged is thrown away."""
        place = self._root / model / digest
        try:
            return await asyncio.to_thread(verified, place, digest)
        except (BadArtifact, UnsafeFile) as error:
            logger.warning("the copy of %s@%s is thrown away: %s", model, digest[:12], error)
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            return None

    async def make(self, store: FileStore, model: str, digest: str) -> Copy:
        """Copies a version from the store, and returns the copy.

        Raises BadArtifact and UnsafeFile with a sentence if the version must not be loaded, OSError if this machine
        cannot keep it, and StoreUnreachable."""
        place = self._root / model / digest
        manifest = await read_manifest(store, model, digest)
        making, lock = await asyncio.to_thread(_begun, place.parent)
        try:
            await _filled(store, model, digest, manifest, making)
            await asyncio.to_thread(verified, making, digest)
            return await asyncio.to_thread(_put, making, place, Copy(place / "files", manifest))
        finally:
            os.close(lock)
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)


def verified(place: Path, digest: str) -> Copy | None:
    """Returns the copy at this place, every byte of which was checked; None if there is none.

    Raises BadArtifact and UnsafeFile."""
    if not place.is_dir():
        return None
    try:
        manifest = parsed((place / "manifest.json").read_bytes(), digest)
        folder = place / "files"
        for cache in folder.rglob("__pycache__"):  # of another replica's Python
            shutil.rmtree(cache, ignore_errors=True)
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        if odd := sorted(there ^ manifest.files.keys()):
            raise BadArtifact(f"{odd[0]}: {'is missing' if odd[0] in manifest.files else 'does not belong here'}")
        for name, file in manifest.files.items():
            path = folder / name
            if path.is_symlink() or path.stat().st_size != file.size or digest_of(path) != file.sha256:
                raise BadArtifact(f"{name}: does not match its hash: it was damaged, or somebody has changed it")
            inspect(path, name)
    except BadManifest as error:
        raise BadArtifact(str(error)) from None
    except OSError as error:
        raise BadArtifact(f"{error.filename}: {error.strerror}") from None
    return Copy(folder, manifest)


def _begun(folder: Path) -> tuple[Path, int]:
    """Returns a new folder for a copy, and the lock that says that somebody is at work there. Removes those of the
    dead."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob(f"{UNFINISHED}*"):
        if (lock := _locked(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    while True:  # until no other process takes it, before it is locked, for one of the dead
        making = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
        if (lock := _locked(making)) is not None:
            (making / "files").mkdir()
            return making, lock


def _locked(folder: Path) -> int | None:
    """Returns the lock of the folder, None if another process has it or the folder is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


async def _filled(store: FileStore, model: str, digest: str, manifest: Manifest, making: Path) -> None:
    for name, file in manifest.files.items():
        target = making / "files" / name
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        try:
            await store.download(file_path(model, digest, name), target, file.size)
        except NoSuchObject:
            raise BadArtifact(f"{name}: is missing in the store") from None
        except ObjectTooLarge:
            raise BadArtifact(f"{name}: does not match its hash: the store has a larger file") from None
    await asyncio.to_thread((making / "manifest.json").write_bytes, manifest.content())


def _put(making: Path, place: Path, made: Copy) -> Copy:
    """Gives a finished copy its name, unless another process was faster; then that one is returned."""
    try:
        making.rename(place)
    except OSError:
        if (found := verified(place, made.manifest.digest)) is None:
            raise
        return found
    return made
