"""The fingerprint of a model: it changes with whatever is known to change the model's answers."""

import inspect
from collections.abc import Iterator, Mapping
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from models.loading import find_factory
from models.options import with_paths
from models.spec import ModelSpec

FINGERPRINT_BYTES = 32
FACTS = ("name", "version", "factory", "inputs", "outputs", "precision", "channels_last", "tolerance")


def fingerprint(spec: ModelSpec) -> bytes:
    """Returns 32 bytes that depend on the model's declaration, on the source file of its factory, and on every file
    that its options name. Reads them all, so call it in a thread. Raises ModelNotLoadable.

    It does not see the modules that the factory imports, nor what it downloads: there the version has to change.
    """
    state = blake2b(digest_size=FINGERPRINT_BYTES)
    state.update(repr([(name, getattr(spec, name)) for name in FACTS]).encode())
    state.update(repr(sorted(spec.options.items())).encode())
    source = _source(spec)
    files = [*([source] if source else []), *sorted(_files(with_paths(spec.options, spec.folder)))]
    for path in files:
        with path.open("rb") as file:
            state.update(file_digest(file, blake2b).digest())
    return state.digest()


def _source(spec: ModelSpec) -> Path | None:
    factory = inspect.unwrap(find_factory(spec.factory, spec.folder))
    try:
        found = inspect.getsourcefile(factory)
    except TypeError:  # written in C
        return None
    return Path(found) if found and Path(found).is_file() else None


def _files(value: Any) -> Iterator[Path]:
    """Yields the files that options name, also those in lists, and all below a folder."""
    if isinstance(value, str):
        path = Path(value)
        if "/" in value and path.is_dir():
            yield from (one for one in path.rglob("*") if one.is_file())
        elif "/" in value and path.is_file():
            yield path
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _files(item)
    elif isinstance(value, list):
        for item in value:
            yield from _files(item)
