"""A version's content: every file with its SHA-256, the model's part of the settings, and where the model came from.

A version is the SHA-256 of its manifest, so that whoever knows the version can check every byte of it. Pure. The
manifest holds no time and no author: the record of the version has them, and equal content is one version.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from typing import Any

from serving.store.objects import BadPath, checked

FORMAT = 1
MOST_FILES = 2000
MOST_MANIFEST_BYTES = 4 << 20
LONGEST_NAME = 400
_DIGEST = re.compile("[0-9a-f]{64}")
FACTS = ("data", "code", "licence", "parent")  # texts: where a model came from
SECTIONS = ("model", "files", "metrics", "environment", "source")


class BadManifest(ValueError):
    """The manifest cannot be used. The text says why."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a version: its size and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of a version.

    model: the model's part of the settings as it was written, without name and version; paths in it are in `files`.
    files: by path. metrics: numbers by name. data, code, licence: of what it was made, as its author named it. parent:
    the hash of the version that it was made from. environment: packages with their versions. source: where it was
    imported from.
    """

    model: Mapping[str, Any]
    files: Mapping[str, File]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    code: str = ""
    licence: str = ""
    parent: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    def content(self) -> bytes:
        """Returns the manifest as it is stored. Equal manifests are equal bytes."""
        value = {
            "format": FORMAT,
            "model": self.model,
            "files": {path: {"size": one.size, "sha256": one.sha256} for path, one in self.files.items()},
            "metrics": self.metrics,
            **{name: getattr(self, name) for name in FACTS},
            "environment": self.environment,
            "source": self.source,
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

    def mistake(self) -> str | None:
        """Returns what keeps it from being stored, None if nothing does."""
        try:
            self.content()
        except (ValueError, TypeError, RecursionError):
            facts = {name: getattr(self, name) for name in ("model", "metrics", "environment", "source", *FACTS)}
            named = next(_unstorable(facts), None)
            return f"{named}, which JSON does not hold" if named else "is nested too deeply"
        return None

    @property
    def digest(self) -> str:
        return sha256(self.content()).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(one.size for one in self.files.values())


def _unstorable(value: object, path: str = "") -> Iterator[str]:
    """Yields what is no JSON, with its path. Values are not those of files, so they are few."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _unstorable(one, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _unstorable(one, f"{path}[{index}]")
    elif isinstance(value, float) and not isfinite(value):
        yield f"{path} is {value}"
    elif isinstance(value, str) and not value.isascii():
        with suppress(UnicodeEncodeError):
            value.encode()
            return
        yield f"{path} is no text in UTF-8"
    elif not isinstance(value, str | int | float | None):
        yield f"{path} is a {type(value).__name__}"


def parsed(content: bytes, digest: str) -> Manifest:
    """Returns the manifest of the version with this hash. Raises BadManifest if it is another's, or harmful."""
    if sha256(content).hexdigest() != digest:
        raise BadManifest("the manifest does not match the hash of its version: somebody has changed it")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise BadManifest("the manifest is not JSON") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise BadManifest("the manifest is of a format that this release does not read; use a newer release")
    sections: dict[str, Any] = {name: value.get(name) for name in SECTIONS}
    texts: dict[str, Any] = {name: value.get(name) for name in FACTS}
    if not all(isinstance(one, dict) for one in sections.values()) or not all(
        isinstance(one, str) for one in texts.values()
    ):
        raise BadManifest("the manifest lacks a section")
    manifest = Manifest(**sections | texts | {"files": dict(_files(sections["files"]))})
    if manifest.content() != content:
        raise BadManifest("the manifest holds what this release does not know; use the release that wrote it, or newer")
    return manifest


def _files(files: Mapping[str, Any]) -> Iterator[tuple[str, File]]:
    if mistake := names_mistake(files):
        raise BadManifest(mistake)
    for path, facts in files.items():
        size, digest = (facts.get("size"), facts.get("sha256")) if isinstance(facts, dict) else (None, None)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadManifest(f"{path}: has no size in the manifest")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise BadManifest(f"{path}: has no SHA-256 in the manifest")
        yield path, File(size, digest)


def names_mistake(names: Mapping[str, object]) -> str | None:
    """Returns what is wrong with the paths of files, None if nothing is."""
    if len(names) > MOST_FILES:
        return f"holds {len(names):,} files; at most {MOST_FILES:,} make a version"
    for name in names:
        try:
            checked(name)
        except BadPath:
            return f"{name[:200]!r}: is no name for a file; use letters, digits and . _ = + @ - between slashes"
        if len(name) > LONGEST_NAME:
            return f"{name[:100]}…: is longer than {LONGEST_NAME} characters"
        parts = name.split("/")
        if above := next((upper for end in range(1, len(parts)) if (upper := "/".join(parts[:end])) in names), None):
            return f"{name}: lies in {above}, which is a file"
    return None
