"""A version as a server takes it over: the model's part of the settings, from the manifest that its hash vouches for.

Knows which version serves and which may, but nothing of the settings that it returns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from serving.registry.artifacts import BadArtifact, file_path, read_manifest
from serving.registry.log import ModelLog
from serving.registry.manifest import Manifest
from serving.registry.reference import Reference
from serving.registry.state import State, UnknownVersion, Version, fold
from serving.store.objects import NoSuchObject, ObjectStore, ObjectTooLarge

MOST_LABELS_BYTES = 16 << 20


class NotServable(Exception):
    """The registry has no such version, or it may not serve. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Definition:
    """A version that may serve. settings: the model's part of them, without name and version, with labels as lists."""

    reference: Reference
    settings: Mapping[str, Any]
    manifest: Manifest


async def definition(
    store: ObjectStore,
    wanted: Reference,
    *,
    approvals: int,
    lines_of: Callable[[bytes], list[str]],
) -> Definition:
    """Returns the version that is meant: the named one, else the one that is released, else the newest approved one.

    approvals: how many a version needs. lines_of: splits a file of labels; raises ValueError. Raises NotServable,
    BadArtifact and StoreUnreachable."""
    log = ModelLog(store, wanted.model)
    await log.read_new()
    version = chosen(fold(log.records), wanted, approvals)
    manifest = await read_manifest(store, wanted.model, version.digest)
    told = dict(manifest.model)
    if isinstance(told.get("labels"), Mapping):
        told["labels"] = {
            output: await _labels(store, wanted.model, version.digest, manifest, labels, lines_of)
            if isinstance(labels, str)
            else labels
            for output, labels in told["labels"].items()
        }
    return Definition(Reference(wanted.model, version.number, version.digest), told, manifest)


def chosen(state: State, wanted: Reference, approvals: int) -> Version:
    """Returns the version that serves. Raises NotServable."""
    model = wanted.model
    if not state.versions:
        raise NotServable(f"the registry has no model {model!r}; `headway registry push DIR --model {model}` makes one")
    if wanted.number is None:
        if (served := state.served(approvals)) is None:
            newest = list(state.versions)[-1]
            raise NotServable(
                f"no version of {model} is released or approved; `headway registry approve {model}@v{newest}` "
                "approves the newest"
            )
        return served
    try:
        version = state.find(wanted.number)
    except UnknownVersion as error:
        raise NotServable(f"{model}: {error}") from None
    if version.archived:
        raise NotServable(f"{model}@v{version.number} is archived")
    if not version.released and not version.is_approved(approvals):
        raise NotServable(
            f"{model}@v{version.number} has {len(version.approvals)} of {approvals} approvals; "
            f"`headway registry approve {model}@v{version.number}` adds one"
        )
    return version


async def _labels(
    store: ObjectStore, model: str, digest: str, manifest: Manifest, name: str, lines_of: Callable[[bytes], list[str]]
) -> list[str]:
    name = name.removeprefix("./")
    if name not in manifest.files:
        raise BadArtifact(f"{name}: is named as a file of labels, and is no file of the version")
    try:
        content = await store.get(file_path(model, digest, name), MOST_LABELS_BYTES)
    except (NoSuchObject, ObjectTooLarge):
        raise BadArtifact(f"{name}: is missing in the store, or too large for labels") from None
    if sha256(content).hexdigest() != manifest.files[name].sha256:
        raise BadArtifact(f"{name}: does not match its hash: somebody has changed it")
    try:
        return lines_of(content)
    except ValueError as error:
        raise BadArtifact(f"{name}: {error}") from None
