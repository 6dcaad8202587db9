"""Lists settings: every value in force with its source, and every setting there is with its default and meaning.

Values that are learned while serving (batch sizes, waiting, predicted times) are not settings and are not listed here;
GET /v2/models/<name>/config reports those of a running model.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel

from serving.config import Settings, source_of
from serving.config_mistakes import section_of
from serving.config_source import KeyPath, written

LEARNED = (
    "how many rows a batch has, and which sizes pay off",
    "when a batch is cut, and whether it waits for more requests",
    "how long a batch of each size takes, and the safety margin",
    "which requests are refused because they cannot be answered in time",
)


class Value(NamedTuple):
    """One resolved setting."""

    key: str
    value: Any
    source: str


class Entry(NamedTuple):
    """One row of the reference: the key (`models[].name`), its default as YAML writes it, and its meaning."""

    key: str
    default: str
    meaning: str


_OF_MANY = {"list": "[]", "dict": ".<name>"}  # behind the key of many sections


def values(settings: Settings) -> list[Value]:
    """Returns every setting that is set or has a default other than empty; of long lists only the length."""
    return [
        Value(written(key), value, source_of(settings, key))
        for key, value in _leaves(settings.model_dump(), ())
        if value not in ({}, [], "", None) or source_of(settings, key) != "default"
    ]


def reference(root: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Entry]:
    """Yields every setting there is, in the order of the tree."""
    for name, field in root.model_fields.items():
        section, kind = section_of(field.annotation), str(field.annotation).partition("[")[0]
        key = f"{prefix}{name}{_OF_MANY.get(kind, '') if section else ''}"
        if section:
            yield from reference(section, f"{key}.")
        else:
            yield Entry(key, _default(field), field.description or "")


def reference_markdown() -> str:
    """Returns the table in docs/configuration.md."""
    rows = [f"| `{entry.key}` | {entry.default} | {entry.meaning} |" for entry in reference()]
    return "\n".join(["| Setting | Default | Meaning |", "|---|---|---|", *rows])


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None or default in ("", {}):
        return "none"
    return f"`{default}`"


def _leaves(value: Any, key: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    items: Any = None
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        items = enumerate(value)
    if items is None:
        is_long = isinstance(value, list) and len(value) > 20
        yield key, f"{len(value)} of them" if is_long else value
        return
    for part, item in items:
        yield from _leaves(item, (*key, part))
