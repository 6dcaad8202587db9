"""Turns pydantic's errors into messages that name the line to change and the value expected there."""

import re
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serving.config_source import KeyPath, Source, written

# The check of a whole section begins its message with the key at fault: "datatype: 'FP31' is not one of ...".
NAMED_KEY = re.compile(r"(?P<key>([a-z_]+|\[\d+\])(\[\d+\])?(\.[A-Za-z_]\w*(\[\d+\])?)*): (?P<text>.*)", re.DOTALL)

WANTED = {
    "string_type": "expected a text",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
}


def describe(error: ErrorDetails, root: type[BaseModel]) -> list[tuple[KeyPath, str]]:
    """Returns (path of the key at fault, message) for each mistake; the check of a whole section may find several."""
    if error["type"] == "value_error":
        return [_named(_path(error), line) for line in str(error["ctx"]["error"]).splitlines()]
    return [_described(error, root)]


def _path(error: ErrorDetails) -> KeyPath:
    return tuple(part for part in error["loc"] if part != "[key]")


def _described(error: ErrorDetails, root: type[BaseModel]) -> tuple[KeyPath, str]:
    key = _path(error)
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return key, _unknown(str(key[-1]), fields_at(root, key[:-1]))
    if kind == "missing":
        return key, "is missing"
    if kind == "literal_error":
        return key, f"{value!r} is not possible; expected {context['expected']}"
    if kind == "too_short":
        return key, f"needs at least {context['min_length']} entry"
    if kind in WANTED:
        quotes = " (put it in quotes)" if kind == "string_type" and type(value) in (int, float) else ""
        return key, f"{WANTED[kind]}, got {_shown(value)}{quotes}"
    message = error["msg"]
    return key, f"{message[0].lower()}{message[1:]}, got {_shown(value)}"


def mistakes(error: ValidationError, root: type[BaseModel], source: Source) -> list[str]:
    """Returns one line per mistake, in the order of the file."""
    described = [mistake for details in error.errors(include_url=False) for mistake in describe(details, root)]
    described.sort(key=lambda mistake: source.line_of(mistake[0]) or 0)
    return [f"{source.locate(key)}: {text}" for key, text in described]


def told_mistakes(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Returns one line per mistake, for settings that are not in a file."""
    described = [mistake for details in error.errors(include_url=False) for mistake in describe(details, root)]
    return [f"{written(key)}: {text}" if key else text for key, text in described]


def fields_at(root: type[BaseModel], key: KeyPath) -> list[str]:
    """Returns the keys that the section at this path may have."""
    section: type[BaseModel] = root
    for part in key:
        if field := section.model_fields.get(str(part)):  # none for an index or the name of a tenant
            section = section_of(field.annotation) or section
    return list(section.model_fields)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Returns the settings class in `X`, `list[X]` or `X | None`, or None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = [section_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next(filter(None, sections), None)


def _unknown(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"possible here: {', '.join(known)}"
    return f"unknown key; {hint}"


def _named(key: KeyPath, text: str) -> tuple[KeyPath, str]:
    match = NAMED_KEY.fullmatch(text)
    if match is None:
        return key, text
    parts = re.findall(r"[A-Za-z_]\w*|\d+", match["key"])
    return (*key, *(int(part) if part.isdigit() else part for part in parts)), match["text"]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return f"{str(value).lower()} (YAML reads yes, no, on and off as true and false; put a text in quotes)"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
