"""Models of the registry in the settings: what a version says of itself, and its files in the process that serves it.

The settings are resolved where they are deployed. A replica then knows the hash of its version, and loads nothing else.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.loading import ModelNotLoadable
from models.spec import ModelSpec
from serving.config import ModelSettings, Settings, SettingsError
from serving.registry.reference import Reference
from serving.store.place import NoState, registry_place
from serving.text_file import lines_of

if TYPE_CHECKING:
    from serving.store.files import Files

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0  # between two tries of a store that is down
PATIENCE_S = 600.0  # then the replica fails, and Ray Serve starts it again

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version that a replica serves, and the registry that has it."""

    place: str
    reference: Reference

    def __str__(self) -> str:
        return f"{self.reference.model}@v{self.reference.number}"


def artifact_of(settings: Settings, application: str) -> Artifact | None:
    """Returns the version that this application of resolved settings serves. None if it is not from the registry."""
    reference = settings.applications()[application].reference
    return Artifact(_place(settings), reference) if reference else None


def resolved(settings: Settings, say: Callable[[str], None] = lambda text: None) -> Settings:
    """Returns the settings with what the registry tells of their models; they are unchanged if none is from there.

    say: is told which version serves. Reads the registry, so call it where no event loop runs. Raises SettingsError
    with every model that cannot serve, and why."""
    if all(model.is_resolved for model in settings.models):
        return settings
    return asyncio.run(_resolved(settings, say))


async def _resolved(settings: Settings, say: Callable[[str], None]) -> Settings:
    models, mistakes = [], []
    for index, model in enumerate(settings.models):
        try:
            made = model if model.is_resolved else await _model(settings, model)
            models.append(made)
            if made is not model:
                say(f"{model.name}: v{made.version} of the registry")
        except Unresolved as error:
            key = ("models", index, "factory")
            place = settings.source.locate(key) if settings.source else f"models[{index}].factory"
            mistakes.append(f"{place}: {error}")
    if mistakes:
        raise SettingsError(mistakes)
    return settings.with_models(models)


class Unresolved(Exception):
    """The registry does not say what a model is. The text says why."""


async def model_settings(settings: Settings, name: str, version: str) -> ModelSettings:
    """Returns the settings of another version of a model that comes from the registry, with all else as it is set.

    version: a number. Raises Unresolved."""
    model = next(model for model in settings.models if model.name == name)
    if model.reference is None:
        raise Unresolved(f"{name} is not from the registry; its settings describe the one version that there is")
    made = await _model(settings, model, Reference(model.reference.model, version))
    try:
        settings.with_version(made)
    except ValueError as error:
        raise Unresolved(f"{name}@v{version} cannot be served beside the other models: {error}") from None
    return made


async def _model(settings: Settings, model: ModelSettings, wanted: Reference | None = None) -> ModelSettings:
    from serving.registry.artifacts import BadArtifact
    from serving.registry.definition import NotServable, definition
    from serving.store.objects import BadPath, StoreUnreachable

    wanted = wanted or model.reference
    assert wanted is not None
    try:
        found = await definition(
            _open(_place(settings)), wanted, approvals=settings.registry.approvals, lines_of=lines_of
        )
        return model.resolved(found.reference, found.settings)
    except StoreUnreachable as error:
        raise Unresolved(f"the registry cannot be reached: {error}") from None
    except (NotServable, BadArtifact, BadPath, NoState, ModuleNotFoundError) as error:
        raise Unresolved(str(error)) from None
    except SettingsError as error:
        raise Unresolved(f"{model.name} cannot be served from the registry: {'; '.join(error.mistakes)}") from None


async def fetched(
    spec: ModelSpec,
    artifact: Artifact,
    *,
    folder: Path | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ModelSpec:
    """Returns the spec with the factory and the options of the version, and the folder of its files on this machine.

    Waits for a store that cannot be reached, unless this machine has a copy. folder: of this machine's copies; None:
    beside other caches. Raises ModelNotLoadable with a sentence.
    """
    from serving.registry.artifacts import BadArtifact
    from serving.registry.copies import Copies, copies_folder
    from serving.registry.inspection import UnsafeFile
    from serving.store.objects import BadPath, StoreUnreachable

    copies = Copies(folder or copies_folder(os.environ))
    model, digest = artifact.reference.model, artifact.reference.digest
    waited_s, pause_s = 0.0, FIRST_PAUSE_S
    while True:
        try:
            copy = await copies.find(model, digest) or await copies.make(_open(artifact.place), model, digest)
            break
        except StoreUnreachable as error:
            if waited_s >= PATIENCE_S:
                raise ModelNotLoadable(
                    f"{artifact} cannot be loaded: the registry cannot be reached: {error}"
                ) from None
            logger.warning("%s waits for the registry, which cannot be reached: %s", artifact, error)
            await pause(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(2 * pause_s, LONGEST_PAUSE_S)
        except (BadArtifact, UnsafeFile, BadPath) as error:
            raise ModelNotLoadable(f"{artifact} is not loaded from {artifact.place}: {error}") from None
        except OSError as error:
            raise ModelNotLoadable(f"{artifact} cannot be kept on this machine: {error}") from None
    factory, options = copy.manifest.model.get("factory"), copy.manifest.model.get("options", {})
    if not isinstance(factory, str) or not isinstance(options, dict):
        raise ModelNotLoadable(f"{artifact} names no factory")
    logger.info("%s is verified: %d files, %d bytes", artifact, len(copy.manifest.files), copy.manifest.size)
    return replace(spec, factory=factory, options=options, folder=str(copy.folder))


def _place(settings: Settings) -> str:
    return registry_place(settings.registry.place, settings.server.state)


def _open(place: str) -> "Files":
    from serving.store.files import open_files

    return open_files(place)
