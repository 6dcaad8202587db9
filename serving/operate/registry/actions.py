"""Actions of people on a registry, from a folder to a version and back. Prints nothing; knows no command line."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from serving.config_artifact import FILE, model_in
from serving.registry.artifacts import (
    BadArtifact,
    Found,
    find_unfinished,
    find_waste,
    hashed,
    push,
    read_manifest,
    survey,
)
from serving.registry.changes import Author, Decide, Refused
from serving.registry.copies import Copies
from serving.registry.log import ModelLog, Records, models_of
from serving.registry.manifest import Manifest
from serving.registry.state import State, UnknownVersion, Version, fold
from serving.store.files import FileStore, open_files

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the registry: its records, what follows from them, and records that cannot be read."""

    name: str
    records: Records
    state: State
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """The content of a version that is ready to be pushed."""

    manifest: Manifest
    files: Mapping[str, Found]


def models_in(place: str) -> list[Model]:
    """Returns all models of a registry by name. Raises StoreUnreachable."""

    async def reading(store: FileStore) -> list[Model]:
        return [await _read(store, name) for name in await models_of(store)]

    return _run(place, reading)


def read_model(place: str, name: str) -> Model:
    """Returns a model. Raises Refused if there is none, StoreUnreachable and BadPath."""
    model = _run(place, lambda store: _read(store, name))
    if not model.records:
        raise Refused(f"the registry has no model {name!r}; `headway registry list` shows them")
    return model


def version_of(model: Model, text: str | None) -> Version:
    """Returns the version that a person names; without a name the newest. Raises Refused."""
    if not model.state.versions:
        raise Refused(f"the registry has no version of {model.name}; its history holds routes only")
    try:
        return model.state.find(text or next(reversed(list(model.state.versions))))
    except UnknownVersion as error:
        raise Refused(f"{model.name}: {error}") from None


def manifest_of(place: str, model: str, version: Version) -> Manifest:
    """Returns the content of a version. Raises BadArtifact and StoreUnreachable."""
    return _run(place, lambda store: read_manifest(store, model, version.digest))


def prepared(folder: Path, facts: Mapping[str, Any], *, model: Mapping[str, Any] | None = None) -> Made:
    """Returns what a folder holds, every file hashed and inspected. facts: of the manifest, beside files and model.

    model: what `model.yaml` would say. Raises BadArtifact, UnsafeFile and SettingsError."""
    if not folder.is_dir():
        raise BadArtifact(f"{folder}: is no folder")
    files = survey(folder, leave_out=[FILE])
    told = model_in(folder) if model is None else dict(model)
    made = Made(Manifest(model=told, files=hashed(files), **facts), files)
    if mistake := made.manifest.mistake():
        raise BadArtifact(f"{folder}: {mistake}")
    return made


def pushed(place: str, model: str, made: Made, author: Author, say: Callable[[str], None]) -> Version:
    """Makes a version and returns it. Raises AlreadyRegistered, BadArtifact, Busy, RecordsUnreadable, what the store
    does."""
    return _run(place, lambda store: push(store, model, made.manifest, made.files, author, say))


def changed(place: str, name: str, decide: Decide) -> Model:
    """Adds the record of a change and returns the model as it is then. Raises Refused, Busy, RecordsUnreadable and
    StoreUnreachable."""

    async def changing(store: FileStore) -> Model:
        await ModelLog(store, name).append(decide)
        return await _read(store, name)

    return _run(place, changing)


def verify(place: str, model: str, version: Version) -> Manifest:
    """Reads every byte of a version again and checks it. Raises BadArtifact, UnsafeFile and StoreUnreachable."""
    with TemporaryDirectory(prefix="headway-verify-") as folder:
        return _run(place, lambda store: Copies(Path(folder)).make(store, model, version.digest)).manifest


def unpack(place: str, model: str, version: Version, folder: Path) -> Manifest:
    """Writes the files of a version into a new folder, verified. Raises what `verify` does, and Refused."""
    if folder.exists():
        raise Refused(f"{folder}: exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".headway-", dir=folder.parent) as making:
        copy = _run(place, lambda store: Copies(Path(making)).make(store, model, version.digest))
        copy.folder.rename(folder)
        return copy.manifest


def cleaned(place: str, names: Sequence[str], now_s: int, *, really: bool) -> list[str]:
    """Removes what nobody needs of these models, and of uploads, or only finds it, and returns the paths.

    Raises RecordsUnreadable and StoreUnreachable."""

    async def cleaning(store: FileStore) -> list[str]:
        paths = list(await find_unfinished(store, now_s))
        for name in names:
            paths += (await find_waste(store, name, now_s)).paths
        for path in paths if really else ():
            await store.remove(path)
        return paths

    return _run(place, cleaning)


async def _read(store: FileStore, name: str) -> Model:
    log = ModelLog(store, name)
    await log.read_new()
    trouble = tuple(map(str, (*log.unreadable, *log.foreign)))
    return Model(name, log.records, fold(log.records), trouble)


def _run(place: str, use: Callable[[FileStore], Awaitable[T]]) -> T:
    async def using() -> T:
        return await use(open_files(place))

    return asyncio.run(using())
