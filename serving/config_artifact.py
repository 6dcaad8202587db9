"""The file `model.yaml` of a folder that becomes a version in the registry: the model's part of the settings.

It says what the model is: factory, options, tensors, labels. How it is served (replicas, cache, tenants), and under
which name, is left to the settings of a server.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serving.config import OF_THE_SERVER, ModelSettings
from serving.config_mistakes import mistakes
from serving.config_source import SettingsError, Source, read_source
from serving.registry.reference import SCHEME

FILE = "model.yaml"


def model_in(folder: Path, *, file: Path | None = None, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns what `model.yaml` in this folder says, as plain data; paths in it are relative to the folder.

    file: this file instead. beside: what holds where the file says nothing. Raises SettingsError with every mistake."""
    source = read_source(file or folder / FILE)
    if not isinstance(source.data, Mapping):
        raise SettingsError([f"{source.path}: expected `factory:`, `inputs:`, `outputs:` and so on"])
    told = {**(beside or {}), **source.data}
    if server := [key for key in OF_THE_SERVER if key in told]:
        raise SettingsError([f"{source.locate((server[0],))}: belongs into the settings of a server, not to a version"])
    check_model(told, folder, source)
    return told


def check_model(told: Mapping[str, Any], folder: Path, source: Source) -> None:
    """Raises SettingsError if this is no model that can be served from files in the folder."""
    factory = told.get("factory")
    if isinstance(factory, str) and factory.startswith(SCHEME):
        place = source.locate(("factory",))
        raise SettingsError([f"{place}: names a version of the registry; write the import string that makes the model"])
    try:
        ModelSettings.model_validate({"name": "model", **told}, context={"folder": folder})
    except ValidationError as error:
        raise SettingsError(mistakes(error, ModelSettings, source)) from None
    labels = [path for path in told.get("labels", {}).values() if isinstance(path, str)]
    for path in (*labels, *_texts(told.get("options", {}))):
        if ".." in Path(path).parts or (Path(path).is_absolute() and Path(path).exists()):
            raise SettingsError([f"{source.path}: {path!r} leaves the folder; a version holds all files that it needs"])


def _texts(value: object) -> list[str]:
    """Returns all texts in options."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [text for one in inner for text in _texts(one)]
