"""Types of single settings, each with the check of its values. Only `serving.config` and its parts use this."""

import json
import re
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from serving.names import FRONT, NAME_CHARACTERS
from serving.registry.reference import reference_in
from serving.text_file import UnreadableText, read_lines
from serving.traffic.tenants import NAME as TENANT_NAME

PATH_SEGMENT = re.compile(rf"[A-Za-z0-9][{NAME_CHARACTERS}]{{0,99}}")
IMPORT_STRING = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\sA-Z]+")
STATE_URL = re.compile(r"file://(localhost)?/[^?#\s]*|s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9._=+@/-]*)?")
KEY_SET_URL = re.compile(
    r"file://(localhost)?/[^?#\s]*|(https://[^/@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?)/\S*"
)
RESERVED_NAMES = {  # each with what the server uses it for
    FRONT: "the application that answers all requests that belong to no model",
    "stats": "GET /v2/models/stats returns the statistics of all models",
    "inference.GRPCInferenceService": "grpc.health.v1 reports the whole server under it",
}


def _tenant(name: str) -> str:
    if not TENANT_NAME.fullmatch(name):
        raise ValueError("a tenant's name has 1 to 64 visible ASCII characters, without blanks")
    return name


def _text_of_whole(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _off_of_false(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare off as false


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    if not isfinite(value):
        raise ValueError(f"expected a finite number, got {value}")
    return value


def _lines(value: object, info: ValidationInfo) -> object:
    """Returns a list of labels as it is. If the value is a path (relative to the settings file), reads the labels from
    that file, one per line. Raises ValueError if it cannot be read or holds no label."""
    if not isinstance(value, str):
        return value
    path = Path((info.context or {}).get("folder", "."), value)
    try:
        labels = read_lines(path)
    except UnreadableText as error:
        raise ValueError(f"the labels' file {path} {error}") from error
    if not any(labels):
        raise ValueError(f"the labels' file {path} holds no label")
    return labels


def _path_segment(value: str) -> str:
    if not PATH_SEGMENT.fullmatch(value):
        raise ValueError(f"{value!r} cannot be part of a URL; use letters, digits, '.', '_' and '-'")
    return value


def _free(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is taken by the server itself: {RESERVED_NAMES[name]}; choose another name")
    return name


def _factory(factory: str) -> str:
    return factory if reference_in(factory) else _import_string(factory)


def _import_string(factory: str) -> str:
    if factory.startswith("."):
        raise ValueError(f"{factory!r} is relative; write the whole path: package.module:attribute")
    if not IMPORT_STRING.fullmatch(factory):
        raise ValueError(f"{factory!r} is not of the form package.module:attribute")
    return factory


def _json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    except RecursionError:
        raise ValueError("is JSON that is nested too deeply") from None
    return text


def _origin(text: str) -> str:
    if text != "*" and not ORIGIN.fullmatch(text):
        raise ValueError(
            f"{text!r} is not an origin; write scheme and host as browsers do: https://app.example, or '*'"
        )
    return text


def _whole_path(text: str, info: ValidationInfo) -> str:
    """Returns the path with the folder of the settings file before it, unless it is absolute or begins with `~`."""
    if not text or not text.isprintable():
        raise ValueError("is no path: it is empty, or holds characters that cannot be printed")
    try:
        return str(Path((info.context or {}).get("folder", "."), Path(text).expanduser()).absolute())
    except RuntimeError as error:
        raise ValueError(f"is no path: {error}") from None


def _state(text: str, info: ValidationInfo) -> str:
    """Returns the place of the state: a URL as it is, a folder with its whole path."""
    if "://" not in text:
        return _whole_path(text, info)
    if not STATE_URL.fullmatch(text):
        raise ValueError("expected a folder, file:///folder or s3://bucket/folder; credentials come from elsewhere")
    return text


def _key_set(text: str, info: ValidationInfo) -> str:
    """Returns the place of a JWKS: a URL as it is, a file with its whole path."""
    if "://" not in text:
        return _whole_path(text, info)
    if not KEY_SET_URL.fullmatch(text):
        raise ValueError("expected a file, file:///file or https://host/path; http:// only on this machine")
    return text


def _positive(weight: float) -> float:
    if weight <= 0:
        raise ValueError(f"a weight must be positive, got {weight}")
    return weight


Origin = Annotated[str, AfterValidator(_origin)]
ModelName = Annotated[str, AfterValidator(_path_segment), AfterValidator(_free)]
Version = Annotated[str, BeforeValidator(_text_of_whole), AfterValidator(_path_segment)]
Factory = Annotated[str, AfterValidator(_factory)]
ImportString = Annotated[str, AfterValidator(_import_string)]
JsonText = Annotated[str, AfterValidator(_json)]
WholePath = Annotated[str, AfterValidator(_whole_path)]
StatePlace = Annotated[str, AfterValidator(_state)]
KeySetPlace = Annotated[str, AfterValidator(_key_set)]
Labels = Annotated[list[str], BeforeValidator(_lines)]
TenantName = Annotated[str, AfterValidator(_tenant)]
Weight = Annotated[float, AfterValidator(_positive)]
Switch = Annotated[Literal["auto", "off"], BeforeValidator(_off_of_false)]
Number = Annotated[float, BeforeValidator(_number)]
WholeOrNumber = Annotated[int | float, BeforeValidator(_number)]
